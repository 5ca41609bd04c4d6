/* mock.c: a cheap OpenAI-compatible upstream to measure gateways with. One thread, epoll, HTTP/1.1 keep-alive.
 *
 *   mock PORT [TLS_PORT CERTIFICATE KEY]        (TLS when built with -DWITH_TLS -lssl -lcrypto); loopback only
 *
 * The request's body says what the answer looks like, so that nothing has to be configured between runs:
 *   "stream": true    server-sent events of about 205 bytes, each its own HTTP chunk and its own send:
 *                     `max_tokens` content chunks, `seed` ms apart, then the finish chunk, the usage chunk if
 *                     `include_usage` was asked for, and [DONE]. Each content chunk carries "@@" and 16 digits of
 *                     CLOCK_MONOTONIC in microseconds: the client on this machine knows how long it was under way.
 *   otherwise         one JSON answer of 590 bytes with usage, after `seed` ms.
 * A POST below /down is answered 503 at once: an upstream in a total outage. GET …/models lists the one model;
 * GET /stats counts: requests, failed (503), aborted (the client left before the end), open connections, chunks.
 *
 *   READING ──whole request──▶ ANSWERING ──last byte sent──▶ READING      what is pipelined waits in `in`
 *                               │      ▲
 *                               └─due──┘ a timer in the heap for each delayed answer
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#ifdef WITH_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
static SSL_CTX *tls_context;
#else
typedef void SSL;
#endif

#define MODEL "upstream-model"
#define EVENT "data: {\"id\":\"chatcmpl-5d0c1e9a7b3f4862\",\"object\":\"chat.completion.chunk\",\"created\":1760000000," \
  "\"model\":\"" MODEL "\",\"choices\":["
#define SEARCHED_BYTES 65536 /* of a larger body, only the last bytes are searched for members */

enum { BLOCKED = 1, GONE = -1 }; /* what write_out and advance say besides 0, "all sent" */

struct conn {
  int fd;
  SSL *ssl;
  bool answering, streaming, usage_asked, wants_out;
  char *in, *out;
  size_t in_len, in_cap, head_len, request_len, out_len, out_sent, out_cap;
  long chunks_left, delay_ms;
  int64_t due_us;
  int heap_at; /* -1: no timer */
};

static int epoll_fd;
static long requests, failed, aborted, open_now, chunks;
static struct conn *heap[65536];
static int heap_len;
static char plain_answer[2048], down_answer[512], event[512];
static size_t plain_len, down_len, event_len, stamp_at;
static char *tail_events[2];
static size_t tail_len[2];

static int64_t now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

/* ---- timers: a binary heap by due time ---- */

static void heap_put(int at, struct conn *c) { heap[at] = c, c->heap_at = at; }

static void heap_up(int at, struct conn *c) {
  for (; at && c->due_us < heap[(at - 1) / 2]->due_us; at = (at - 1) / 2) heap_put(at, heap[(at - 1) / 2]);
  heap_put(at, c);
}

static void heap_down(int at, struct conn *c) {
  for (int child; (child = 2 * at + 1) < heap_len; at = child) {
    if (child + 1 < heap_len && heap[child + 1]->due_us < heap[child]->due_us) child++;
    if (c->due_us <= heap[child]->due_us) break;
    heap_put(at, heap[child]);
  }
  heap_put(at, c);
}

static void timer_set(struct conn *c) { heap_up(heap_len++, c); }

static void timer_clear(struct conn *c) {
  if (c->heap_at < 0) return;
  int at = c->heap_at;
  struct conn *last = heap[--heap_len];
  c->heap_at = -1;
  if (last == c) return;
  heap_up(at, last);
  heap_down(last->heap_at, last);
}

/* ---- bytes in and out ---- */

static void *grown(void *buffer, size_t size) {
  buffer = realloc(buffer, size);
  if (!buffer) { fputs("mock: out of memory\n", stderr); exit(1); }
  return buffer;
}

static void out_add(struct conn *c, const char *bytes, size_t len) {
  if (c->out_len + len > c->out_cap) c->out = grown(c->out, c->out_cap = (c->out_len + len) * 2);
  memcpy(c->out + c->out_len, bytes, len);
  c->out_len += len;
}

/* Bytes moved; 0: nothing for now; GONE. */
static ssize_t conn_read(struct conn *c, char *to, size_t len) {
#ifdef WITH_TLS
  if (c->ssl) {
    ERR_clear_error();
    int n = SSL_read(c->ssl, to, len > 1 << 20 ? 1 << 20 : (int)len);
    if (n > 0) return n;
    return SSL_get_error(c->ssl, n) == SSL_ERROR_WANT_READ ? 0 : GONE;
  }
#endif
  ssize_t n = recv(c->fd, to, len, 0);
  return n > 0 ? n : n < 0 && errno == EAGAIN ? 0 : GONE;
}

static ssize_t conn_write(struct conn *c, const char *from, size_t len) {
#ifdef WITH_TLS
  if (c->ssl) {
    ERR_clear_error();
    int n = SSL_write(c->ssl, from, (int)len);
    if (n > 0) return n;
    return SSL_get_error(c->ssl, n) == SSL_ERROR_WANT_WRITE ? 0 : GONE;
  }
#endif
  ssize_t n = send(c->fd, from, len, MSG_NOSIGNAL);
  return n > 0 ? n : n < 0 && errno == EAGAIN ? 0 : GONE;
}

static void want_out(struct conn *c, bool wanted) {
  if (c->wants_out == wanted) return;
  c->wants_out = wanted;
  struct epoll_event e = {.events = EPOLLIN | (wanted ? EPOLLOUT : 0), .data.ptr = c};
  epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
}

static int write_out(struct conn *c) {
  while (c->out_sent < c->out_len) {
    ssize_t n = conn_write(c, c->out + c->out_sent, c->out_len - c->out_sent);
    if (n < 0) return GONE;
    if (n == 0) { want_out(c, true); return BLOCKED; }
    c->out_sent += n;
  }
  c->out_len = c->out_sent = 0;
  want_out(c, false);
  return 0;
}

static void conn_close(struct conn *c) {
  if (c->answering) aborted++;
  timer_clear(c);
#ifdef WITH_TLS
  if (c->ssl) SSL_free(c->ssl);
#endif
  close(c->fd);
  open_now--;
  free(c->in);
  free(c->out);
  free(c);
}

/* ---- answers ---- */

static size_t as_http_chunk(char *to, const char *text) {
  return sprintf(to, "%zx\r\n%s\r\n", strlen(text), text);
}

static size_t as_answer(char *to, const char *status, const char *json) {
  return sprintf(to, "HTTP/1.1 %s\r\nserver: mock\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s",
                 status, strlen(json), json);
}

static void make_answers(void) {
  static char text[1024], finish[512], usage[512];
  plain_len = as_answer(plain_answer, "200 OK",
    "{\"id\":\"chatcmpl-5d0c1e9a7b3f486290ab1c2d3e4f5061\",\"object\":\"chat.completion\",\"created\":1760000000,"
    "\"model\":\"" MODEL "\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"Look at the "
    "queue over time and at how long a consumer waits for a connection; the one that grows first names the "
    "cause. Then compare the time of the slowest statement with the time it takes when nothing else runs, and "
    "change the size of the pool.\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
    "\"usage\":{\"prompt_tokens\":312,\"completion_tokens\":58,\"total_tokens\":370},\"system_fingerprint\":\"fp\"}");
  down_len = as_answer(down_answer, "503 Service Unavailable",
    "{\"error\":{\"message\":\"The model is overloaded.\",\"type\":\"server_error\",\"code\":null,\"param\":null}}");
  strcpy(text, EVENT "{\"index\":0,\"delta\":{\"content\":\"@@0000000000000000 \"},\"finish_reason\":null}]}\n\n");
  event_len = as_http_chunk(event, text);
  stamp_at = strstr(event, "@@") + 2 - event;
  size_t n = as_http_chunk(finish, EVENT "{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n");
  tail_events[0] = finish, tail_len[0] = n;
  strcpy(usage, finish);
  as_http_chunk(usage + n, EVENT "],\"usage\":{\"prompt_tokens\":312,\"completion_tokens\":200,\"total_tokens\":512}}\n\n");
  tail_events[1] = usage, tail_len[1] = strlen(usage);
}

static void add_chunk(struct conn *c) {
  int64_t stamp = now_us();
  for (int at = 15; at >= 0; at--, stamp /= 10) event[stamp_at + at] = '0' + stamp % 10;
  out_add(c, event, event_len);
  chunks++;
}

static void add_tail(struct conn *c) {
  static const char end[] = "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";
  out_add(c, tail_events[c->usage_asked], tail_len[c->usage_asked]);
  out_add(c, end, sizeof end - 1);
  c->streaming = false;
}

/* Push the answer on as far as it goes without waiting. */
static int advance(struct conn *c) {
  for (;;) {
    int sent = write_out(c);
    if (sent) return sent;
    if (!c->streaming) break;
    if (c->chunks_left-- > 0) add_chunk(c);
    else add_tail(c);
    if (c->streaming && c->delay_ms && c->chunks_left >= 0) {
      sent = write_out(c);
      if (sent < 0) return sent;
      c->due_us += c->delay_ms * 1000;
      timer_set(c);
      return 0;
    }
  }
  c->answering = false;
  return 0;
}

static void begin_stream(struct conn *c, long count) {
  static const char head[] = "HTTP/1.1 200 OK\r\nserver: mock\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                             "cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";
  out_add(c, head, sizeof head - 1);
  c->streaming = true;
  c->chunks_left = count;
  c->due_us = now_us();
}

/* ---- requests ---- */

static const char *member(const char *body, size_t len, const char *name) {
  const char *found = memmem(body, len, name, strlen(name));
  if (!found) return NULL;
  for (found += strlen(name); found < body + len && (*found == ' ' || *found == ':'); found++) {}
  return found < body + len ? found : NULL;
}

static long number(const char *body, size_t len, const char *name, long missing) {
  const char *found = member(body, len, name);
  return found ? atol(found) : missing;
}

static int answer_chat(struct conn *c, const char *body, size_t len) {
  if (len > SEARCHED_BYTES) body += len - SEARCHED_BYTES, len = SEARCHED_BYTES;
  const char *stream = member(body, len, "\"stream\"");
  c->delay_ms = number(body, len, "\"seed\"", 0);
  if (stream && *stream == 't') {
    c->usage_asked = memmem(body, len, "\"include_usage\"", 15) != NULL;
    begin_stream(c, number(body, len, "\"max_tokens\"", 200));
    return advance(c);
  }
  out_add(c, plain_answer, plain_len);
  if (!c->delay_ms) return advance(c);
  c->due_us = now_us() + c->delay_ms * 1000;
  timer_set(c);
  return 0;
}

static int answer_get(struct conn *c, const char *target) {
  char json[256], whole[512];
  if (!strncmp(target, "/stats", 6))
    sprintf(json, "{\"requests\":%ld,\"failed\":%ld,\"aborted\":%ld,\"open\":%ld,\"chunks\":%ld}", requests, failed,
            aborted, open_now, chunks);
  else
    strcpy(json, "{\"object\":\"list\",\"data\":[{\"id\":\"" MODEL "\",\"object\":\"model\",\"owned_by\":\"mock\"}]}");
  out_add(c, whole, as_answer(whole, "200 OK", json));
  return advance(c);
}

static int answer(struct conn *c, const char *body, size_t len) {
  c->answering = true;
  if (!strncmp(c->in, "GET ", 4)) return answer_get(c, c->in + 4);
  requests++;
  if (strncmp(c->in, "POST /down", 10)) return answer_chat(c, body, len);
  failed++;
  out_add(c, down_answer, down_len);
  return advance(c);
}

/* Where the head ends and how long the request is: request_len 0 for a chunked body, whose end is looked for. */
static void read_head(struct conn *c) {
  char *end = memmem(c->in, c->in_len, "\r\n\r\n", 4);
  if (!end) return;
  c->head_len = end + 4 - c->in;
  size_t length = 0;
  bool chunked = false;
  for (char *line = c->in; line < end; line = (char *)memchr(line, '\n', end + 4 - line) + 1) {
    if (!strncasecmp(line, "content-length:", 15)) length = strtoul(line + 15, NULL, 10);
    if (!strncasecmp(line, "transfer-encoding:", 18)) chunked = true;
  }
  c->request_len = chunked ? 0 : c->head_len + length;
}

static bool request_is_whole(struct conn *c) {
  if (!c->head_len) read_head(c);
  if (!c->head_len) return false;
  if (c->request_len) return c->in_len >= c->request_len;
  char *last = memmem(c->in + c->head_len - 2, c->in_len - c->head_len + 2, "\r\n0\r\n\r\n", 7);
  if (last) c->request_len = last + 7 - c->in;
  return last != NULL;
}

/* Answer what has been read, one request after the other, until one takes time. */
static int answer_next(struct conn *c) {
  while (!c->answering && request_is_whole(c)) {
    size_t head_len = c->head_len, used = c->request_len;
    c->head_len = c->request_len = 0;
    if (answer(c, c->in + head_len, used - head_len) == GONE) return GONE;
    memmove(c->in, c->in + used, c->in_len -= used);
  }
  return 0;
}

static int read_in(struct conn *c) {
  for (;;) {
    size_t needed = (c->request_len > c->in_len ? c->request_len : c->in_len) + 2048;
    if (needed > c->in_cap) c->in = grown(c->in, c->in_cap = needed > 2 * c->in_cap ? needed : 2 * c->in_cap);
    ssize_t n = conn_read(c, c->in + c->in_len, c->in_cap - c->in_len - 1);
    if (n < 0) return GONE;
    if (n == 0) return 0;
    c->in[c->in_len += n] = 0; /* numbers of the body are read as text */
    if (answer_next(c) == GONE) return GONE;
    if (!c->ssl) return 0; /* only TLS may hold bytes that epoll does not see */
  }
}

/* ---- the loop ---- */

static struct conn *accept_one(int listener, bool tls) {
  int one = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
  if (fd < 0) return NULL;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  struct conn *c = calloc(1, sizeof *c);
  c->fd = fd;
  c->heap_at = -1;
#ifdef WITH_TLS
  if (tls) {
    c->ssl = SSL_new(tls_context);
    SSL_set_fd(c->ssl, fd);
    SSL_set_accept_state(c->ssl);
  }
#else
  (void)tls;
#endif
  open_now++;
  struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e);
  return c;
}

static int listen_on(int port, void *mark) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 4096)) { perror("mock: listen"); exit(1); }
  struct epoll_event e = {.events = EPOLLIN, .data.ptr = mark};
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e);
  return fd;
}

static void start_tls(const char *certificate, const char *key) {
#ifdef WITH_TLS
  tls_context = SSL_CTX_new(TLS_server_method());
  SSL_CTX_set_mode(tls_context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  if (SSL_CTX_use_certificate_chain_file(tls_context, certificate) == 1 &&
      SSL_CTX_use_PrivateKey_file(tls_context, key, SSL_FILETYPE_PEM) == 1) return;
#else
  (void)certificate, (void)key;
#endif
  fputs("mock: no TLS in this build, or a wrong certificate\n", stderr);
  exit(1);
}

static int go_on(struct conn *c) {
  return advance(c) == GONE || answer_next(c) == GONE ? GONE : 0;
}

static void handle(struct conn *c, uint32_t events) {
  int done = 0;
  if (events & EPOLLOUT) done = c->heap_at < 0 ? go_on(c) : write_out(c);
  if (done != GONE && events & (EPOLLIN | EPOLLHUP | EPOLLERR)) done = read_in(c);
  if (done == GONE) conn_close(c);
}

static void fire_timers(void) {
  int64_t now = now_us();
  while (heap_len && heap[0]->due_us <= now) {
    struct conn *c = heap[0];
    timer_clear(c);
    if (go_on(c) == GONE) conn_close(c);
  }
}

static int wait_ms(void) {
  if (!heap_len) return -1;
  int64_t left_us = heap[0]->due_us - now_us();
  return left_us <= 0 ? 0 : (int)((left_us + 999) / 1000);
}

int main(int argc, char **argv) {
  if (argc != 2 && argc != 5) { fputs("usage: mock PORT [TLS_PORT CERTIFICATE KEY]\n", stderr); return 2; }
  signal(SIGPIPE, SIG_IGN);
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  epoll_fd = epoll_create1(0);
  make_answers();
  static int plain_mark, tls_mark;
  int plain = listen_on(atoi(argv[1]), &plain_mark), tls = -1;
  if (argc == 5) start_tls(argv[3], argv[4]), tls = listen_on(atoi(argv[2]), &tls_mark);
  static struct epoll_event events[512];
  for (;;) {
    int count = epoll_wait(epoll_fd, events, 512, wait_ms());
    for (int i = 0; i < count; i++) {
      void *mark = events[i].data.ptr;
      if (mark == &plain_mark) while (accept_one(plain, false)) {}
      else if (mark == &tls_mark) while (accept_one(tls, true)) {}
      else handle(mark, events[i].events);
    }
    fire_timers();
  }
}
