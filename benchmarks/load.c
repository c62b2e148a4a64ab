/* The load client: thousands of event streams from one thread, by raw epoll, so that it isn't the bottleneck.
 *
 * usage: load HOST PORT
 * Commands come as lines on standard input, one answer line each on standard output:
 *
 *   open N PATH [HEADER]       open N more streams at once; answer: opened N QUANTILES (µs until the first event)
 *   round SEQUENCE T0          wait until every stream has "buildNumber":SEQUENCE; answer: round SEQUENCE QUANTILES
 *                              (µs since T0, nanoseconds of CLOCK_MONOTONIC)
 *   wait SECONDS               read for so long; answer: waited BYTES ENDED
 *   close                      close all streams; answer: closed N
 *
 * QUANTILES are 101 numbers, the 0th to the 100th percentile. Every stream must see consecutive build numbers, from the
 * first that it sees on: each once, in order. Anything else is an error, and so is a stream that ends or an answer that
 * isn't 200: `error TEXT`, exit 1. Source addresses are spread over 127.0.0.0/8, 20,000 streams each.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MARKER "\"buildNumber\":"
#define MAX_STREAMS 200000
#define IN_FLIGHT 512
#define PER_ADDRESS 20000
#define TIMEOUT_NS 60000000000LL

enum { CONNECTING, HEAD, BODY, OPEN, CLOSED };

struct stream {
    int fd;
    int state;
    long sequence;    /* the last build number seen, -1 for none */
    int carried;      /* bytes of the end of what was read before */
    char carry[48];
    long long since;  /* when the connection was begun */
    long long arrived;
};

static struct stream streams[MAX_STREAMS];
static int count, epoll;
static struct sockaddr_in server;
static char request[2048];
static long awaited = -1;
static int missing, pending;
static long long received;
static double samples[MAX_STREAMS];

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void fail(const char *what, const char *detail) {
    printf("error %s: %s\n", what, detail);
    fflush(stdout);
    exit(1);
}

static void begin(struct stream *s, int number) {
    struct sockaddr_in from = {.sin_family = AF_INET};
    struct epoll_event event = {.events = EPOLLOUT | EPOLLIN, .data.ptr = s};
    int on = 1;
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (s->fd < 0) fail("socket", strerror(errno));
    setsockopt(s->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    from.sin_addr.s_addr = htonl(0x7f000002 + number / PER_ADDRESS);
    if (bind(s->fd, (void *)&from, sizeof from) < 0) fail("bind", strerror(errno));
    s->state = CONNECTING;
    s->sequence = -1;
    s->carried = 0;
    s->arrived = 0;
    s->since = now();
    if (connect(s->fd, (void *)&server, sizeof server) < 0 && errno != EINPROGRESS) fail("connect", strerror(errno));
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, s->fd, &event) < 0) fail("epoll_ctl", strerror(errno));
}

static void see(struct stream *s, long sequence, long long at) {
    char text[64];
    if (s->sequence >= 0 && sequence != s->sequence + 1) {
        snprintf(text, sizeof text, "%ld after %ld", sequence, s->sequence);
        fail("order", text);
    }
    s->sequence = sequence;
    if (sequence == awaited) {
        s->arrived = at;
        missing--;
    }
}

/* Find the marked numbers in what was carried over and what came; carry over what may be the start of one. */
static void scan(struct stream *s, char *data, int size, long long at) {
    char *end = data + size, *p = data, *digits, *stop;
    while ((p = memmem(p, end - p, MARKER, sizeof MARKER - 1))) {
        digits = p + sizeof MARKER - 1;
        for (stop = digits; stop < end && *stop >= '0' && *stop <= '9'; stop++) {}
        if (stop == end) break; /* the number may go on in the next segment */
        see(s, strtol(digits, NULL, 10), at);
        p = data = stop;
    }
    if (p == NULL) p = end - data > (int)sizeof MARKER ? end - sizeof MARKER : data;
    s->carried = end - p;
    if (s->carried > (int)sizeof s->carry) fail("parse", "a build number is too long");
    memcpy(s->carry, p, s->carried);
}

static void closed(struct stream *s, const char *why) {
    close(s->fd);
    s->state = CLOSED;
    fail("a stream ended", why);
}

static void readable(struct stream *s) {
    static char buffer[sizeof s->carry + 65536 + 1];
    char *data = buffer, *body;
    ssize_t n;
    long long at = now();
    memcpy(buffer, s->carry, s->carried);
    n = recv(s->fd, buffer + s->carried, 65536, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) closed(s, n ? strerror(errno) : "end of file");
    received += n;
    n += s->carried;
    buffer[n] = 0;
    if (s->state == HEAD) {
        if (memcmp(data, "HTTP/1.1 200", 12)) {
            buffer[n > 100 ? 100 : n] = 0;
            fail("answer", strtok(data, "\r\n"));
        }
        body = memmem(data, n, "\r\n\r\n", 4);
        if (!body) fail("parse", "the head came in pieces");
        n -= body + 4 - data;
        data = body + 4;
        s->state = BODY;
    }
    if (s->state == BODY && n > 0) {
        s->state = OPEN;
        s->arrived = at;
        pending--;
    }
    scan(s, data, n, at);
}

static void turn(long long until) {
    struct epoll_event events[256], change;
    long long left = until - now();
    int n = epoll_wait(epoll, events, 256, left > 0 ? left / 1000000 + 1 : 0), error;
    socklen_t size = sizeof error;
    for (int i = 0; i < n; i++) {
        struct stream *s = events[i].data.ptr;
        if (s->state == CONNECTING) {
            getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &size);
            if (error) fail("connect", strerror(error));
            if (!(events[i].events & EPOLLOUT)) continue;
            if (send(s->fd, request, strlen(request), 0) < 0) fail("send", strerror(errno));
            s->state = HEAD;
            change.events = EPOLLIN;
            change.data.ptr = s;
            epoll_ctl(epoll, EPOLL_CTL_MOD, s->fd, &change);
        } else {
            readable(s);
        }
    }
}

static int ascending(const void *a, const void *b) {
    double difference = *(const double *)a - *(const double *)b;
    return (difference > 0) - (difference < 0);
}

static void print_quantiles(int n) {
    qsort(samples, n, sizeof *samples, ascending);
    for (int q = 0; q <= 100; q++) printf(" %.1f", samples[(int)((n - 1) * (q / 100.0))]);
    printf("\n");
}

static void open_streams(int n, const char *path, const char *header) {
    int first = count, last = count + n, begun = count;
    long long deadline = now() + TIMEOUT_NS;
    if (last > MAX_STREAMS) fail("open", "too many");
    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\n%s%s\r\n", path,
             header, *header ? "\r\n" : "");
    pending = n;
    while (pending) {
        while (begun < last && pending - (last - begun) < IN_FLIGHT) {
            begin(&streams[begun], begun);
            begun++;
        }
        turn(deadline);
        if (now() > deadline) fail("open", "timeout");
    }
    count = last;
    for (int i = first; i < last; i++) samples[i - first] = (streams[i].arrived - streams[i].since) / 1e3;
    printf("opened %d", n);
    print_quantiles(n);
}

static void await_round(long sequence, long long t0) {
    long long deadline = now() + TIMEOUT_NS;
    awaited = sequence;
    missing = count;
    for (int i = 0; i < count; i++) {
        if (streams[i].sequence >= sequence) fail("round", "it came before it was expected");
    }
    while (missing) {
        turn(deadline);
        if (now() > deadline) fail("round", "timeout");
    }
    for (int i = 0; i < count; i++) samples[i] = (streams[i].arrived - t0) / 1e3;
    printf("round %ld", sequence);
    print_quantiles(count);
}

int main(int argc, char **argv) {
    char line[2048], path[1024], header[512];
    struct rlimit limit;
    int n;
    long sequence;
    long long t0;
    double seconds;
    if (argc != 3) return 2;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    server.sin_family = AF_INET;
    server.sin_port = htons(atoi(argv[2]));
    inet_pton(AF_INET, argv[1], &server.sin_addr);
    epoll = epoll_create1(0);
    while (fgets(line, sizeof line, stdin)) {
        header[0] = 0;
        if (sscanf(line, "open %d %1023s %511[^\n]", &n, path, header) >= 2) {
            open_streams(n, path, header);
        } else if (sscanf(line, "round %ld %lld", &sequence, &t0) == 2) {
            await_round(sequence, t0);
        } else if (sscanf(line, "wait %lf", &seconds) == 1) {
            long long until = now() + (long long)(seconds * 1e9);
            received = 0;
            while (now() < until) turn(until);
            printf("waited %lld\n", received);
        } else if (!strncmp(line, "close", 5)) {
            for (int i = 0; i < count; i++) close(streams[i].fd);
            printf("closed %d\n", count);
            count = 0;
        } else {
            fail("command", line);
        }
        fflush(stdout);
    }
    return 0;
}
