"""Never twice, never lost: two gateways on one data directory are killed at random while deployments come and go.

    python -m bench.kills [--kills 500] [--seed N] [--minutes 30]

The platforms are emulators in this process, one account for each way of telling that a create was made
before; their ledgers are the judge. Answers get lost, come after the caller's patience or are errors
after the effect, new things stay hidden, and creates, scales, stops, starts and deletes go on all the
time. Some lives end at a named crash point (`app/kit/crash.py`), the others anywhere.

The seed fixes what is asked and when each process shall die, not what the machine makes of it.
"""
