/* The floor: what the kernel alone charges. Every POST's body goes, as one chunk, to every stream by a loop of send().
 *
 * usage: floor PORT
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_STREAMS 200000

static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                           "6\r\n: hi\n\n\r\n";
static int streams[MAX_STREAMS], count;

static void publish(const char *body) {
    char chunk[4096];
    int size = strlen(body) + 8, length = snprintf(chunk, sizeof chunk, "%x\r\ndata: %s\n\n\r\n", size, body);
    for (int i = 0; i < count; i++) {
        if (send(streams[i], chunk, length, MSG_NOSIGNAL) < 0) streams[i--] = streams[--count];
    }
}

static void answer(int fd) {
    char request[4096], *body;
    ssize_t n = recv(fd, request, sizeof request - 1, 0);
    if (n <= 0) {
        close(fd);
        return;
    }
    request[n] = 0;
    if (!strncmp(request, "POST", 4)) {
        while (request[n - 1] != '}') { /* the body comes in a segment of its own */
            ssize_t more = recv(fd, request + n, sizeof request - 1 - n, 0);
            if (more <= 0) return;
            request[n += more] = 0;
        }
        body = strstr(request, "\r\n\r\n");
        if (body) publish(body + 4);
        send(fd, "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n", 43, MSG_NOSIGNAL);
    } else {
        send(fd, head, sizeof head - 1, MSG_NOSIGNAL);
        streams[count++] = fd;
    }
}

int main(int argc, char **argv) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event events[256], event = {.events = EPOLLIN};
    struct rlimit limit;
    int listening = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), epoll = epoll_create1(0), on = 1, n, fd;
    if (argc != 2) return 2;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    address.sin_port = htons(atoi(argv[1]));
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listening, (void *)&address, sizeof address) < 0 || listen(listening, 4096) < 0) return 1;
    event.data.fd = listening;
    epoll_ctl(epoll, EPOLL_CTL_ADD, listening, &event);
    for (;;) {
        n = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.fd != listening) {
                answer(events[i].data.fd);
                continue;
            }
            while ((fd = accept(listening, NULL, NULL)) >= 0) {
                event.data.fd = fd;
                epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
            }
        }
    }
}
