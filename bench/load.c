// Load for `python -m bench.proxy`: servers and clients that cost less than what they measure.
//   load sink|echo PORT              a server: reads and forgets, or answers each read with the same
//   load bulk PORT MB                one connection's rate, to the server's end of stream: GB/s
//   load turns PORT COUNT SIZE       round trips on one connection: the median in us
//   load many PORT COUNT SIZE CONNS  round trips a second over so many connections
//   load conns PORT COUNT            connects, one byte there and back, resets: a second
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static char buf[1 << 18];

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

static struct sockaddr_in loopback(int port) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return a;
}

static int dial(int port) {
  struct sockaddr_in a = loopback(port);
  int s = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  struct timeval most = {20, 0};
  if (connect(s, (void *)&a, sizeof a)) fail("connect");
  setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof most);
  return s;
}

static void serve(int port, int echo) {
  struct sockaddr_in a = loopback(port);
  int l = socket(AF_INET, SOCK_STREAM, 0), on = 1, ep = epoll_create1(0);
  setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(l, (void *)&a, sizeof a) || listen(l, 4096)) fail("listen");
  struct epoll_event e = {.events = EPOLLIN, .data.fd = l}, seen[256];
  epoll_ctl(ep, EPOLL_CTL_ADD, l, &e);
  for (;;) {
    int n = epoll_wait(ep, seen, 256, -1);
    for (int i = 0; i < n; i++) {
      int f = seen[i].data.fd;
      if (f == l) {
        int s = accept4(l, 0, 0, SOCK_NONBLOCK);
        if (s < 0) continue;
        setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        e.data.fd = s;
        epoll_ctl(ep, EPOLL_CTL_ADD, s, &e);
        continue;
      }
      ssize_t r = read(f, buf, sizeof buf);
      if (r > 0 && echo && write(f, buf, r) != r) close(f);
      if (r == 0 || (r < 0 && errno != EAGAIN)) close(f);
    }
  }
}

static void bulk(int port, long bytes) {
  int s = dial(port);
  double began = now();
  for (long left = bytes; left > 0;) {
    ssize_t r = write(s, buf, left < (long)sizeof buf ? left : (long)sizeof buf);
    if (r < 0) fail("write");
    left -= r;
  }
  shutdown(s, SHUT_WR);
  if (read(s, buf, 1) != 0) fail("end of stream");
  printf("%.4f\n", bytes / (now() - began) / 1e9);
}

static int ascending(const void *a, const void *b) {
  double x = *(double *)a, y = *(double *)b;
  return x < y ? -1 : x > y;
}

static void turns(int port, int count, int size) {
  int s = dial(port);
  double *took = malloc(sizeof(double) * count);
  for (int i = -200; i < count; i++) {
    double began = now();
    if (write(s, buf, size) != size) fail("write");
    for (int got = 0; got < size;) {
      ssize_t r = read(s, buf, size - got);
      if (r <= 0) fail("read");
      got += r;
    }
    if (i >= 0) took[i] = (now() - began) * 1e6;
  }
  qsort(took, count, sizeof(double), ascending);
  printf("%.2f %.2f\n", took[count / 2], took[(int)(count * .99)]);
}

static void many(int port, int count, int size, int conns) {
  int ep = epoll_create1(0), done = 0;
  struct epoll_event e = {.events = EPOLLIN}, seen[256];
  for (int i = 0; i < conns; i++) {
    int s = dial(port);
    fcntl(s, F_SETFL, O_NONBLOCK);
    e.data.fd = s;
    epoll_ctl(ep, EPOLL_CTL_ADD, s, &e);
    if (write(s, buf, size) != size) fail("write");
  }
  double began = now();
  while (done < count) {
    int n = epoll_wait(ep, seen, 256, 5000);
    if (n <= 0) fail("nothing for 5 s");
    for (int i = 0; i < n; i++) {
      if (read(seen[i].data.fd, buf, size) != size) fail("read");
      done++;
      if (write(seen[i].data.fd, buf, size) != size) fail("write");
    }
  }
  printf("%.1f\n", done / (now() - began));
}

static void conns(int port, int count) {
  struct linger reset = {1, 0};
  double began = now();
  for (int i = 0; i < count; i++) {
    int s = dial(port);
    if (write(s, "x", 1) != 1 || read(s, buf, 1) != 1) fail("one byte");
    setsockopt(s, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(s);
  }
  printf("%.1f\n", count / (now() - began));
}

int main(int c, char **v) {
  signal(SIGPIPE, SIG_IGN);
  int port = c > 2 ? atoi(v[2]) : 0, a = c > 3 ? atoi(v[3]) : 0, b = c > 4 ? atoi(v[4]) : 0;
  if (!port) return 2;
  if (!strcmp(v[1], "sink")) serve(port, 0);
  if (!strcmp(v[1], "echo")) serve(port, 1);
  if (!strcmp(v[1], "bulk")) bulk(port, (long)a << 20);
  if (!strcmp(v[1], "turns")) turns(port, a, b);
  if (!strcmp(v[1], "many")) many(port, a, b, c > 5 ? atoi(v[5]) : 1);
  if (!strcmp(v[1], "conns")) conns(port, a);
  return 0;
}
