/* load.c: an HTTP/1.1 load generator for gateways. One thread, epoll, loopback only; prints one JSON object.
 *
 *   load -p PORT -b BODY [-u path] [-k api_key] [-c connections] [-d seconds] [-w warm_up_seconds] [-g grace_seconds]
 *        [-n requests] [-s stagger_ms] [-r requests_per_second | -x cancel_ms | -H]
 *        [-e status] [-a ANSWER] [-t chunks]
 *
 * How requests are made:
 *   (default)  closed loop: every connection sends its next request when the answer to the last has ended
 *   -r         open loop, Poisson: a latency counts from the moment the request was due, so a slow gateway
 *              cannot slow down what measures it
 *   -x         closed loop of callers who leave: each connection is closed 0..cancel_ms after its request
 *   -H         opens one stream a connection, says "held" when all have begun, keeps them until stdin ends
 *
 * Every answer is checked, during warm-up too: its status (-e; 5 stands for any 5xx), its bytes (-a: the file holds
 * the body expected), and for streams (a body with "stream":true) the number of content chunks (-t) and [DONE] at
 * the very end. What differs counts as `wrong`, what broke off as `aborted`.
 *
 * "open" and "close" on stderr mark the measured window, so that CPU time can be read at the same two moments.
 * Answers and chunks are counted inside the window. A chunk's delay is its arrival minus the mock's stamp in it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NEVER INT64_MAX
#define DUE_CAPACITY 65536

/* ---- a histogram of microseconds: 128 steps for each power of two, so 0.8 % exact ---- */

struct histogram { long count, steps[64 * 128]; double sum; int64_t max; };

static void histogram_add(struct histogram *h, int64_t us) {
  if (us < 0) us = 0;
  int shift = us < 256 ? 0 : 56 - __builtin_clzll(us);
  h->steps[shift * 128 + (us >> shift)]++;
  h->count++;
  h->sum += us;
  if (us > h->max) h->max = us;
}

static double histogram_quantile(const struct histogram *h, double share) {
  long wanted = (long)ceil(share * h->count), seen = 0;
  for (int at = 0; at < 64 * 128; at++) {
    seen += h->steps[at];
    if (!seen || seen < wanted) continue;
    int shift = at < 256 ? 0 : at / 128 - 1;
    return (double)((int64_t)(at - shift * 128) << shift) + ((1LL << shift) - 1) / 2.0;
  }
  return 0;
}

static void histogram_print(const char *name, const struct histogram *h) {
  printf(",\"%s\":{\"count\":%ld,\"mean\":%.1f,\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"max\":%ld}", name, h->count,
         h->count ? h->sum / h->count : 0, histogram_quantile(h, .5), histogram_quantile(h, .9),
         histogram_quantile(h, .99), (long)h->max);
}

/* ---- what was asked for, and what was found ---- */

static struct {
  const char *path, *key, *body_file, *answer_file;
  int port, connections, status;
  double seconds, warm_up_seconds, grace_seconds, stagger_ms, rate, cancel_ms;
  long requests, chunks;
  bool hold, stream;
} ask = {.path = "/v1/chat/completions", .connections = 32, .status = 200, .seconds = 3, .warm_up_seconds = 1,
         .grace_seconds = 5, .chunks = -1};

static long started, ended, counted, wrong, aborted, cancelled, reconnects, overflowed, chunks, body_bytes, begun;
static struct histogram latency, first_chunk, chunk_delay;
static char first_wrong[400];
static char *request, *expected;
static size_t request_len, expected_len;

/* ---- connections ---- */

enum part { HEAD, LENGTH, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER, UNTIL_CLOSE };

struct conn {
  int fd;
  bool connected, busy, wants_out, closes, differs;
  size_t sent;
  int64_t due_us, first_us, cut_us;
  enum part part;
  char head[8192], last[16];
  size_t head_len, body_len;
  int status;
  long left; /* bytes of the body, of the chunk, or of the trailer's line so far */
  int marks; /* of a stamp: 1, 2 = that many "@", more = digits read + 2 */
  int64_t stamp;
  long stamps;
};

static int epoll_fd;
static struct sockaddr_in gateway;
static int64_t window_opens, window_closes, now;
static struct conn *conns, **idle;
static int idle_count;
static int64_t *due;
static long due_head, due_tail;

static int64_t now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static bool in_window(void) { return now >= window_opens && now < window_closes; }

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static void conn_open(struct conn *c) {
  int one = 1;
  c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (c->fd < 0) fail("load: socket");
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (connect(c->fd, (struct sockaddr *)&gateway, sizeof gateway) && errno != EINPROGRESS) fail("load: connect");
  c->connected = c->busy = false;
  c->wants_out = true;
  struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &e);
}

static void conn_reopen(struct conn *c) {
  close(c->fd);
  reconnects++;
  conn_open(c);
}

static void want_out(struct conn *c, bool wanted) {
  if (c->wants_out == wanted) return;
  c->wants_out = wanted;
  struct epoll_event e = {.events = EPOLLIN | (wanted ? EPOLLOUT : 0), .data.ptr = c};
  epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
}

static bool send_request(struct conn *c) {
  while (c->sent < request_len) {
    ssize_t n = send(c->fd, request + c->sent, request_len - c->sent, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) return false;
    if (n <= 0) break;
    c->sent += n;
  }
  want_out(c, c->sent < request_len);
  return true;
}

/* A failed send shows as an error event of the socket, so the return of send_request is left to that. */
static void begin(struct conn *c, int64_t due_us) {
  c->busy = true;
  c->part = HEAD;
  c->sent = c->head_len = c->body_len = 0;
  c->status = c->marks = 0;
  c->stamps = c->first_us = 0;
  c->closes = c->differs = false;
  c->due_us = due_us;
  c->cut_us = ask.cancel_ms > 0 ? now + (int64_t)(drand48() * ask.cancel_ms * 1000) : NEVER;
  memset(c->last, 0, sizeof c->last);
  started++;
  if (c->connected) send_request(c);
}

/* ---- reading answers ---- */

static void read_stamps(struct conn *c, const char *at, const char *end) {
  while (at < end) {
    if (c->marks == 0 && !(at = memchr(at, '@', end - at))) return;
    if (c->marks < 2) {
      c->marks = *at++ == '@' ? c->marks + 1 : 0;
      c->stamp = 0;
      continue;
    }
    if (*at < '0' || *at > '9') { c->marks = 0; continue; }
    c->stamp = c->stamp * 10 + (*at++ - '0');
    if (++c->marks < 18) continue;
    c->marks = 0;
    if (!c->stamps++) c->first_us = now, begun++;
    if (in_window()) chunks++, histogram_add(&chunk_delay, now - c->stamp);
  }
}

static void keep_last(struct conn *c, const char *bytes, size_t len) {
  size_t room = sizeof c->last;
  if (len >= room) { memcpy(c->last, bytes + len - room, room); return; }
  memmove(c->last, c->last + len, room - len);
  memcpy(c->last + room - len, bytes, len);
}

static void read_body(struct conn *c, const char *bytes, size_t len) {
  if (in_window()) body_bytes += len;
  if (ask.stream) {
    read_stamps(c, bytes, bytes + len);
    keep_last(c, bytes, len);
  } else if (!c->first_us) c->first_us = now;
  if (expected && (c->body_len + len > expected_len || memcmp(expected + c->body_len, bytes, len))) c->differs = true;
  if (c->differs && !first_wrong[0]) snprintf(first_wrong, sizeof first_wrong, "%.*s", (int)len, bytes);
  c->body_len += len;
}

static void read_fields(struct conn *c) {
  c->status = atoi(c->head + 9);
  const char *length = strcasestr(c->head, "\r\ncontent-length:");
  if (strcasestr(c->head, "\r\nconnection: close")) c->closes = true;
  if (strcasestr(c->head, "\r\ntransfer-encoding:")) c->part = CHUNK_SIZE, c->left = 0;
  else if (length) c->part = LENGTH, c->left = atol(length + 17);
  else c->part = UNTIL_CLOSE;
}

/* Bytes of `from` that belong to the head. */
static size_t read_head(struct conn *c, const char *from, size_t len) {
  size_t room = sizeof c->head - 1 - c->head_len, taken = len < room ? len : room, before = c->head_len;
  memcpy(c->head + c->head_len, from, taken);
  c->head_len += taken;
  c->head[c->head_len] = 0;
  char *end = strstr(c->head, "\r\n\r\n");
  if (!end) return taken ? taken : len;
  end[2] = 0;
  read_fields(c);
  return end + 4 - c->head - before;
}

static int hex(char digit) { return digit <= '9' ? digit - '0' : (digit | 32) - 'a' + 10; }

/* One byte of the framing between chunks; true when it ended the answer. */
static bool read_framing(struct conn *c, char byte) {
  if (c->part == CHUNK_END) {
    if (byte == '\n') c->part = CHUNK_SIZE, c->left = 0;
  } else if (c->part == CHUNK_SIZE) {
    if (byte == '\n') c->part = c->left ? CHUNK_DATA : TRAILER;
    else if (byte != '\r') c->left = c->left * 16 + hex(byte);
  } else if (byte == '\n') {
    if (c->left == 0) return true;
    c->left = 0;
  } else if (byte != '\r') c->left++;
  return false;
}

/* True when the answer has ended; what follows it would be the gateway's mistake and is counted as such. */
static bool read_answer(struct conn *c, const char *at, size_t len) {
  const char *end = at + len;
  bool done = false;
  while (at < end && !done) {
    if (c->part == HEAD) {
      at += read_head(c, at, end - at);
      done = c->part == LENGTH && c->left == 0;
    } else if (c->part == CHUNK_SIZE || c->part == CHUNK_END || c->part == TRAILER) {
      done = read_framing(c, *at++);
    } else {
      size_t part = end - at;
      if (c->part != UNTIL_CLOSE && part > (size_t)c->left) part = c->left;
      read_body(c, at, part);
      at += part;
      if (c->part == UNTIL_CLOSE || (c->left -= part)) continue;
      if (c->part == LENGTH) done = true;
      else c->part = CHUNK_END;
    }
  }
  if (done && at < end) c->differs = true;
  return done;
}

static bool is_right(const struct conn *c) {
  if (ask.status < 10 ? c->status / 100 != ask.status : c->status != ask.status) return false;
  if (c->differs || (expected && c->body_len != expected_len)) return false;
  if (!ask.stream || c->status != 200) return true;
  return (ask.chunks < 0 || c->stamps == ask.chunks) && !memcmp(c->last + 2, "data: [DONE]\n\n", 14);
}

static void answered(struct conn *c) {
  c->busy = false;
  ended++;
  if (!is_right(c)) {
    wrong++;
    if (!first_wrong[0])
      snprintf(first_wrong, sizeof first_wrong, "status %d, %zu bytes, %ld chunks, end: %.16s", c->status, c->body_len,
               c->stamps, c->last);
    return;
  }
  if (in_window()) counted++;
  if (c->due_us < window_opens || (ask.rate == 0 && !in_window()) || c->due_us >= window_closes) return;
  histogram_add(&latency, now - c->due_us);
  if (c->first_us) histogram_add(&first_chunk, c->first_us - c->due_us);
}

/* ---- when to send ---- */

static bool may_start(void) { return now < window_closes && (!ask.requests || started < ask.requests); }

static void ready(struct conn *c) {
  if (ask.rate > 0) idle[idle_count++] = c;
  else if (!ask.hold && may_start()) begin(c, now);
}

static int64_t next_due = 0;
static int staggered = 0;

static void begin_due(void) {
  if (ask.rate == 0) {
    int64_t origin = window_opens - (int64_t)(ask.warm_up_seconds * 1e6);
    for (; staggered < ask.connections && now >= origin + (int64_t)(staggered * ask.stagger_ms * 1000); staggered++)
      if (may_start()) conn_open(&conns[staggered]), begin(&conns[staggered], now);
    return;
  }
  for (; next_due <= now && next_due < window_closes; next_due += (int64_t)(-log(1 - drand48()) * 1e6 / ask.rate) + 1) {
    if (due_tail - due_head < DUE_CAPACITY) due[due_tail++ % DUE_CAPACITY] = next_due;
    else overflowed++;
  }
  while (due_head < due_tail && idle_count) begin(idle[--idle_count], due[due_head++ % DUE_CAPACITY]);
}

/* Callers who leave: half of them with a reset, half with an orderly end. */
static void cut_due(void) {
  if (ask.cancel_ms == 0) return;
  for (int i = 0; i < ask.connections; i++) {
    struct conn *c = &conns[i];
    if (!c->busy || now < c->cut_us) continue;
    struct linger reset = {.l_onoff = started & 1, .l_linger = 0};
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    ended++;
    cancelled++;
    conn_reopen(c);
    ready(c);
  }
}

static int64_t next_event(void) {
  int64_t next = now < window_opens ? window_opens : now < window_closes ? window_closes : now + 5000;
  if (ask.rate > 0 && next_due < next && next_due < window_closes) next = next_due;
  if (staggered < ask.connections && now + (int64_t)(ask.stagger_ms * 1000) < next)
    next = now + (int64_t)(ask.stagger_ms * 1000);
  if (ask.cancel_ms > 0)
    for (int i = 0; i < ask.connections; i++)
      if (conns[i].busy && conns[i].cut_us < next) next = conns[i].cut_us;
  return next;
}

static bool is_over(void) {
  bool none_left = started == ended && due_head == due_tail;
  if (ask.requests && started >= ask.requests && none_left) return true;
  if (now < window_closes) return false;
  return none_left || now >= window_closes + (int64_t)(ask.grace_seconds * 1e6);
}

/* ---- the loop ---- */

static void lost(struct conn *c) {
  if (c->busy && c->part == UNTIL_CLOSE) answered(c);
  else if (c->busy) aborted++, ended++;
  conn_reopen(c);
}

static bool receive(struct conn *c) {
  static char bytes[262144];
  ssize_t n = recv(c->fd, bytes, sizeof bytes, 0);
  if (n < 0 && errno == EAGAIN) return true;
  if (n <= 0) return false;
  now = now_us();
  if (!c->busy) { wrong++; return false; }
  if (!read_answer(c, bytes, n)) return true;
  bool closes = c->closes;
  answered(c);
  if (closes) conn_reopen(c);
  ready(c);
  return true;
}

static void handle(struct conn *c, uint32_t events) {
  bool fine = true, was_busy = c->busy;
  if (events & EPOLLOUT) {
    c->connected = true;
    if (c->busy) fine = send_request(c);
    else want_out(c, false);
  }
  if (fine && events & (EPOLLIN | EPOLLHUP | EPOLLERR)) fine = receive(c);
  if (fine) return;
  lost(c);
  if (was_busy) ready(c);
}

static void note_window(void) {
  static int noted = 0;
  if (noted == 0 && now >= window_opens) fputs("open\n", stderr), noted = 1;
  if (noted == 1 && now >= window_closes) fputs("close\n", stderr), noted = 2;
}

/* Stays until stdin ends; false when it has. */
static bool keep_holding(void) {
  static bool said = false;
  if (!said && begun >= ask.connections) fputs("held\n", stderr), said = true;
  char byte;
  struct epoll_event e;
  static int stdin_epoll = -1;
  if (stdin_epoll < 0) {
    stdin_epoll = epoll_create1(0);
    e.events = EPOLLIN | EPOLLHUP;
    epoll_ctl(stdin_epoll, EPOLL_CTL_ADD, 0, &e);
  }
  return epoll_wait(stdin_epoll, &e, 1, 0) <= 0 || read(0, &byte, 1) > 0;
}

static void run(void) {
  static struct epoll_event events[512];
  for (;;) {
    now = now_us();
    note_window();
    begin_due();
    cut_due();
    if (is_over() || (ask.hold && !keep_holding())) return;
    int64_t wait_us = next_event() - now;
    if (wait_us < 0) wait_us = 0;
    if (ask.hold && wait_us > 20000) wait_us = 20000;
    struct timespec wait = {wait_us / 1000000, wait_us % 1000000 * 1000};
    int count = epoll_pwait2(epoll_fd, events, 512, &wait, NULL);
    now = now_us();
    for (int i = 0; i < count; i++) handle(events[i].data.ptr, events[i].events);
  }
}

static char *read_file(const char *name, size_t *len) {
  FILE *file = fopen(name, "rb");
  if (!file) fail(name);
  fseek(file, 0, SEEK_END);
  *len = ftell(file);
  rewind(file);
  char *bytes = malloc(*len + 1);
  if (fread(bytes, 1, *len, file) != *len) fail(name);
  bytes[*len] = 0;
  fclose(file);
  return bytes;
}

static void make_request(void) {
  size_t len;
  char *body = read_file(ask.body_file, &len);
  ask.stream = strstr(body, "\"stream\":true") != NULL;
  request = malloc(len + 4096);
  request_len = sprintf(request, "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
    "Accept: */*\r\nUser-Agent: load\r\nContent-Length: %zu\r\n", ask.path, ask.port, len);
  if (ask.key) request_len += sprintf(request + request_len, "Authorization: Bearer %s\r\n", ask.key);
  request_len += sprintf(request + request_len, "\r\n");
  memcpy(request + request_len, body, len);
  request_len += len;
}

static void read_options(int argc, char **argv) {
  for (int option; (option = getopt(argc, argv, "p:b:u:k:c:d:w:g:n:s:r:x:e:a:t:H")) > 0;) switch (option) {
    case 'p': ask.port = atoi(optarg); break;
    case 'b': ask.body_file = optarg; break;
    case 'u': ask.path = optarg; break;
    case 'k': ask.key = optarg; break;
    case 'c': ask.connections = atoi(optarg); break;
    case 'd': ask.seconds = atof(optarg); break;
    case 'w': ask.warm_up_seconds = atof(optarg); break;
    case 'g': ask.grace_seconds = atof(optarg); break;
    case 'n': ask.requests = atol(optarg); break;
    case 's': ask.stagger_ms = atof(optarg); break;
    case 'r': ask.rate = atof(optarg); break;
    case 'x': ask.cancel_ms = atof(optarg); break;
    case 'e': ask.status = atoi(optarg); break;
    case 'a': ask.answer_file = optarg; break;
    case 't': ask.chunks = atol(optarg); break;
    case 'H': ask.hold = true; break;
    default: exit(2);
  }
  if (!ask.port || !ask.body_file) { fputs("load: -p PORT and -b BODY are needed\n", stderr); exit(2); }
}

static void print_json_text(const char *text) {
  for (putchar('"'); *text; text++) {
    if (*text == '"' || *text == '\\') putchar('\\');
    if (*text == '\n') fputs("\\n", stdout);
    else if ((unsigned char)*text >= 32 && (unsigned char)*text < 127) putchar(*text);
  }
  putchar('"');
}

static void report(void) {
  double seconds = ((now < window_closes ? now : window_closes) - window_opens) / 1e6;
  printf("{\"seconds\":%.3f,\"started\":%ld,\"answers\":%ld,\"answers_per_second\":%.2f,\"chunks\":%ld,"
         "\"chunks_per_second\":%.2f,\"body_bytes\":%ld,\"wrong\":%ld,\"aborted\":%ld,\"cancelled\":%ld,"
         "\"unfinished\":%ld,\"overflowed\":%ld,\"reconnects\":%ld", seconds, started, counted, counted / seconds, chunks,
         chunks / seconds, body_bytes, wrong, aborted, cancelled, started - ended, overflowed, reconnects);
  histogram_print("latency_us", &latency);
  histogram_print("first_us", &first_chunk);
  histogram_print("chunk_delay_us", &chunk_delay);
  fputs(",\"first_wrong\":", stdout);
  print_json_text(first_wrong);
  puts("}");
}

int main(int argc, char **argv) {
  read_options(argc, argv);
  signal(SIGPIPE, SIG_IGN);
  prctl(PR_SET_TIMERSLACK, 1);
  srand48(42);
  make_request();
  if (ask.answer_file) expected = read_file(ask.answer_file, &expected_len);
  gateway = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(ask.port),
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  epoll_fd = epoll_create1(0);
  conns = calloc(ask.connections, sizeof *conns);
  idle = calloc(ask.connections, sizeof *idle);
  due = calloc(DUE_CAPACITY, sizeof *due);
  now = next_due = now_us();
  window_opens = now + (int64_t)(ask.warm_up_seconds * 1e6);
  window_closes = window_opens + (int64_t)(ask.seconds * 1e6);
  for (int i = 0; ask.rate > 0 && i < ask.connections; i++) conn_open(&conns[i]), idle[idle_count++] = &conns[i];
  run();
  report();
  return 0;
}
