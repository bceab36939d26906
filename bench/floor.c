/* The floor: the least that a server can do with one HTTP POST.
 *
 * One epoll loop; a request is read whole (its head, then as many bytes as content-length says) and
 * answered with the same 700 bytes of JSON. No parsing beyond that, no state, no decision: what any
 * bidder costs above this is its own work. `bench/ratio.py` measures both in the same run.
 *
 *   floor PORT [BURN_US]     serves 127.0.0.1:PORT until it is killed
 *
 * With BURN_US it works before each answer for so many microseconds, as long as the machine is calm:
 * half of them it computes, half of them it reads here and there in a quarter of a gigabyte, as a
 * bidder does in its catalogue and profiles. That is the control for latency: a server that does a
 * bidder's work in C and nothing else, so whatever tail it shows at a given load is the machine's
 * (`bench/latency.py`). It must read memory, for a host may make just that slow for a while.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 256, FDS_MAX = 65536, BUFFER_BYTES = 65536, BODY_BYTES = 700, HEAD_ROOM = 256 };
enum { MEMORY_BYTES = 256 << 20 };

/* Bytes of one connection that are not answered yet. */
struct connection {
    char *bytes;
    size_t count;
};

static struct connection connections[FDS_MAX];
static char answer[HEAD_ROOM + BODY_BYTES];
static size_t answer_bytes;
static long burn_ns;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static long cpu_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return now.tv_sec * 1000000000L + now.tv_nsec;
}

/* What is read is spread as a bidder's data are; reads depend on each other as its do. */
static unsigned char *memory;
static long touches;

static void touch(long count) {
    static uint64_t at = 88172645463325252u;
    for (long i = 0; i < count; i++) {
        at ^= at << 13, at ^= at >> 7, at ^= at << 17;
        at += memory[at % MEMORY_BYTES];
    }
}

/* Stands for the work of one request. */
static void burn(void) {
    touch(touches);
    long until = cpu_ns() + burn_ns / 2;
    while (cpu_ns() < until)
        ;
}

/* How many reads take half of the time, where nothing disturbs them. */
static void prepare_burn(void) {
    enum { TRIES = 20, COUNT = 20000 };
    long best_ns = 1L << 40;
    memory = malloc(MEMORY_BYTES);
    if (memory == NULL)
        fail("malloc");
    memset(memory, 1, MEMORY_BYTES);
    for (int i = 0; i < TRIES; i++) {
        long since_ns = cpu_ns();
        touch(COUNT);
        since_ns = cpu_ns() - since_ns;
        best_ns = since_ns < best_ns ? since_ns : best_ns;
    }
    touches = burn_ns / 2 * COUNT / best_ns;
}

static void make_answer(void) {
    answer_bytes = (size_t)snprintf(
        answer, HEAD_ROOM,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n",
        BODY_BYTES);
    char *body = answer + answer_bytes;
    memset(body, 'x', BODY_BYTES);
    memcpy(body, "{\"id\":\"", 7);
    memcpy(body + BODY_BYTES - 2, "\"}", 2);
    answer_bytes += BODY_BYTES;
}

/* Bytes of the first whole request in the buffer; 0 while a part is missing. */
static size_t whole_request(const char *bytes, size_t count) {
    const char *end = memmem(bytes, count, "\r\n\r\n", 4);
    if (end == NULL)
        return 0;
    size_t length = 0;
    const char *line = memchr(bytes, '\n', count);
    for (; line != NULL && line < end; line = memchr(line, '\n', (size_t)(end + 2 - line))) {
        line++;
        if (strncasecmp(line, "content-length:", 15) == 0)
            length = strtoul(line + 15, NULL, 10);
    }
    size_t total = (size_t)(end + 4 - bytes) + length;
    return total <= count ? total : 0;
}

static void end(int fd) {
    close(fd);
    free(connections[fd].bytes);
    connections[fd].bytes = NULL;
    connections[fd].count = 0;
}

static void serve(int fd) {
    struct connection *one = &connections[fd];
    ssize_t got = read(fd, one->bytes + one->count, BUFFER_BYTES - one->count);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0 || one->count + (size_t)got >= BUFFER_BYTES) {
        end(fd);
        return;
    }
    one->count += (size_t)got;
    one->bytes[one->count] = 0; /* so that reading a length stops */
    size_t used;
    while ((used = whole_request(one->bytes, one->count)) != 0) {
        if (burn_ns)
            burn();
        if (write(fd, answer, answer_bytes) != (ssize_t)answer_bytes) {
            end(fd);
            return;
        }
        one->count -= used;
        memmove(one->bytes, one->bytes + used, one->count);
    }
}

static int listener(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons((unsigned short)port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0)
        fail("socket");
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 4096) < 0)
        fail("listen");
    return fd;
}

static void welcome(int epoll, int listening) {
    int on = 1, fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK);
    if (fd < 0)
        return;
    if (fd >= FDS_MAX || (connections[fd].bytes = malloc(BUFFER_BYTES + 1)) == NULL) {
        close(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        end(fd);
}

int main(int argc, char **argv) {
    if (argc < 2 || argc > 3 || atoi(argv[1]) <= 0) {
        fprintf(stderr, "usage: floor PORT [BURN_US]\n");
        return 2;
    }
    burn_ns = argc == 3 ? atol(argv[2]) * 1000 : 0;
    if (burn_ns)
        prepare_burn();
    make_answer();
    int listening = listener(atoi(argv[1])), epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listening}, events[EVENTS];
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listening, &event) < 0)
        fail("epoll");
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd == listening)
                welcome(epoll, listening);
            else
                serve(events[i].data.fd);
        }
    }
}
