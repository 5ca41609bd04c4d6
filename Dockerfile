# The gateway for an external Postgres: no embedded database, no model engine, no build tools, no root.
#
#   docker build -t modelport .
#   docker run --init -p 8080:8080 -v modelport:/var/lib/modelport --stop-timeout 65 \
#     -e MODELPORT_DATABASE_URL=postgresql://… -e MODELPORT_MASTER_KEYS=k1:… modelport
#
# Run `docker run … modelport migrate` before a new version, or set MODELPORT_MIGRATE_ON_START=true.

FROM python:3.11-slim AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore

# The build backend, in the versions and with the hashes of the lock, where the image to ship does not see it.
COPY requirements.lock ./
RUN python -m venv /opt/build \
 && awk '/^[a-z]/ { wanted = /^(hatchling|packaging|pathspec|pluggy|trove-classifiers)==/ } wanted' requirements.lock > build.lock \
 && /opt/build/bin/pip install --no-deps --require-hashes -r build.lock

# What is shipped: an environment that has the dependencies and no pip.
COPY requirements-prod.lock ./
RUN python -m venv --without-pip /opt/modelport \
 && /opt/build/bin/pip --python /opt/modelport/bin/python install --no-deps --require-hashes -r requirements-prod.lock

COPY pyproject.toml README.md LICENSE ./
COPY migrations migrations
COPY app app
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /opt/build/bin/pip --python /opt/modelport/bin/python install --no-deps --no-index /wheels/*.whl


FROM python:3.11-slim
LABEL org.opencontainers.image.title="Modelport" \
      org.opencontainers.image.description="One API to deploy models on any platform, one OpenAI endpoint to call them." \
      org.opencontainers.image.licenses="Apache-2.0"

RUN groupadd --gid 10001 modelport \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/modelport --shell /usr/sbin/nologin modelport \
 && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/modelport
COPY --from=build /opt/modelport /opt/modelport

ENV PATH=/opt/modelport/bin:$PATH PYTHONUNBUFFERED=1 MODELPORT_DATA_DIR=/var/lib/modelport
USER 10001:10001
WORKDIR /var/lib/modelport
VOLUME /var/lib/modelport
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]
ENTRYPOINT ["modelport"]
CMD ["serve", "--host", "0.0.0.0"]
