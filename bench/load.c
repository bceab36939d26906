/* An open-loop load generator for bid requests: constant rate, keep-alive, no pipelining.
 *
 * Requests leave by a clock, whatever the server does, and latency counts from the time at which a
 * request was *meant* to leave: a server that stalls cannot slow the clock down and hide its stall
 * (coordinated omission). When no connection is free another is opened, up to a limit, as exchanges
 * do; beyond it requests wait here, and after --give-up-ms they are dropped and counted `unsent`.
 *
 *   load --port P --bodies FILE [--phase RATE:SECONDS]... [options]
 *
 * RATE 0 is a closed loop: every connection sends again as soon as it is answered. Bodies are the
 * lines of FILE, in turn. An answer is late when it took longer than its body's tmax. The result is
 * one JSON object: a row a phase, and a row for every window of time (by the time of sending).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S 1000000000LL
#define NS_PER_MS 1000000LL

enum {
    PHASES_MAX = 16,
    EVENTS = 512,
    CONNECTIONS_MAX = 16384,
    CONNECTING_MAX = 64,     /* half-open connections at once: less than the server's backlog */
    OPENED_PER_S = 2000,     /* new connections: a storm of them is another fault than of requests */
    BUFFER_BYTES = 16384,    /* holds any head; longer bodies are counted and thrown away */
    SUB_BUCKETS = 64,        /* to a doubling: quantiles are right within 1.6 % */
    BUCKETS = 1536,
    SPIN_NS = 60000,         /* a sleep shorter than this wakes too late to be worth it */
    GRACE_S = 2,             /* after the last request was sent */
};

struct histogram {
    uint32_t counts[BUCKETS];
    uint64_t total, sum_us, max_us;
};

struct tally {
    uint64_t sent, bids, nobids, refused, failed, other, late, unsent, errors;
    struct histogram latency, bid_latency;
};

/* One window of time: a smaller tally. */
struct window {
    uint32_t sent, bids, nobids, late, unsent;
    uint32_t stolen_ms; /* time that the host kept our cores from us, all cores together */
    struct histogram latency;
};

struct phase {
    double rate, seconds;
    int64_t start_ns, end_ns;
    struct tally tally;
};

struct request {
    char *bytes;
    size_t count;
    int64_t tmax_ns;
};

enum state { CLOSED, CONNECTING, IDLE, BUSY };

struct connection {
    int fd;
    enum state state;
    char *bytes;
    size_t count;        /* bytes of the head so far */
    int64_t body_left;   /* -1: the head is not whole yet */
    int status;
    int closes;          /* the server said so */
    int64_t meant_ns;    /* when the request should have left */
    int64_t tmax_ns;
    struct phase *phase;
};

static struct phase phases[PHASES_MAX];
static int phases_count;
static struct request *requests;
static size_t requests_count, next_request;
static struct connection connections[CONNECTIONS_MAX];
static int connections_first = 32, connections_max, opened, connecting, busy;
static int idle[CONNECTIONS_MAX], idle_head, idle_count; /* a ring: all connections take turns */
static struct window *windows;
static size_t windows_count;
static int64_t window_ns = 100 * NS_PER_MS, give_up_ns, tmax_default_ns = 100 * NS_PER_MS, begin_ns;
static struct histogram lag; /* how late we sent although a connection was free: our own fault */
static int64_t starved_ns;
static uint64_t reopened;
static struct sockaddr_in address;
static int epoll;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * NS_PER_S + time.tv_nsec;
}

/* -- histograms ---------------------------------------------------------------------------------*/

static int bucket_of(uint64_t us) {
    if (us < SUB_BUCKETS)
        return (int)us;
    int exponent = 63 - __builtin_clzll(us) - 5;
    int bucket = exponent * (SUB_BUCKETS / 2) + (int)(us >> exponent);
    return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

/* The longest duration that falls into a bucket. */
static uint64_t bucket_end_us(int bucket) {
    if (bucket < SUB_BUCKETS)
        return (uint64_t)bucket;
    int exponent = bucket / (SUB_BUCKETS / 2) - 1;
    return ((uint64_t)(bucket - exponent * (SUB_BUCKETS / 2) + 1) << exponent) - 1;
}

static void note(struct histogram *histogram, int64_t ns) {
    uint64_t us = ns > 0 ? (uint64_t)ns / 1000 : 0;
    histogram->counts[bucket_of(us)]++;
    histogram->total++;
    histogram->sum_us += us;
    if (us > histogram->max_us)
        histogram->max_us = us;
}

static double quantile_ms(const struct histogram *histogram, double share) {
    uint64_t wanted = (uint64_t)(share * (double)histogram->total), seen = 0;
    for (int i = 0; i < BUCKETS; i++) {
        seen += histogram->counts[i];
        if (seen > wanted) {
            uint64_t us = bucket_end_us(i);
            return (double)(us < histogram->max_us ? us : histogram->max_us) / 1000.0;
        }
    }
    return (double)histogram->max_us / 1000.0;
}

/* -- requests -----------------------------------------------------------------------------------*/

static void add_request(const char *host, const char *path, const char *headers, const char *body) {
    struct request *one = &requests[requests_count++];
    const char *tmax = strstr(body, "\"tmax\":");
    long tmax_ms = tmax ? strtol(tmax + 7, NULL, 10) : 0;
    int count = asprintf(
        &one->bytes,
        "POST %s HTTP/1.1\r\nhost: %s\r\ncontent-type: application/json\r\n"
        "x-openrtb-version: 2.6\r\n%scontent-length: %zu\r\n\r\n%s",
        path, host, headers, strlen(body), body);
    if (count < 0)
        fail("asprintf");
    one->count = (size_t)count;
    one->tmax_ns = tmax_ms > 0 ? tmax_ms * NS_PER_MS : tmax_default_ns;
}

static void read_bodies(
    const char *name, const char *host, const char *path, const char *headers
) {
    FILE *file = fopen(name, "r");
    char *line = NULL;
    size_t room = 0, held = 0;
    ssize_t count;
    if (file == NULL)
        fail(name);
    while ((count = getline(&line, &room, file)) > 0) {
        if (line[count - 1] == '\n')
            line[--count] = 0;
        if (count == 0)
            continue;
        if (requests_count == held) {
            held = held ? held * 2 : 1024;
            requests = realloc(requests, held * sizeof *requests);
            if (requests == NULL)
                fail("realloc");
        }
        add_request(host, path, headers, line);
    }
    free(line);
    fclose(file);
    if (requests_count == 0) {
        fprintf(stderr, "%s: no bodies\n", name);
        exit(1);
    }
}

/* -- connections --------------------------------------------------------------------------------*/

static void set_idle(struct connection *one) {
    one->state = IDLE;
    one->count = 0;
    one->body_left = -1;
    idle[(idle_head + idle_count++) % CONNECTIONS_MAX] = (int)(one - connections);
}

static struct connection *take_idle(void) {
    while (idle_count > 0) {
        struct connection *one = &connections[idle[idle_head]];
        idle_head = (idle_head + 1) % CONNECTIONS_MAX;
        idle_count--;
        if (one->state == IDLE)
            return one;
    }
    return NULL;
}

static void open_connection(struct connection *one) {
    int on = 1;
    one->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (one->fd < 0)
        fail("socket");
    setsockopt(one->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (one->bytes == NULL && (one->bytes = malloc(BUFFER_BYTES + 1)) == NULL)
        fail("malloc");
    if (connect(one->fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS)
        fail("connect");
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = one};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, one->fd, &event) < 0)
        fail("epoll_ctl");
    one->state = CONNECTING;
    connecting++;
    opened++;
}

static void grow(void) {
    static int64_t next_ns;
    int64_t now = now_ns();
    if (opened >= connections_max || connecting >= CONNECTING_MAX || now < next_ns)
        return;
    next_ns = now + NS_PER_S / OPENED_PER_S;
    for (int i = 0; i < connections_max; i++)
        if (connections[i].state == CLOSED) {
            open_connection(&connections[i]);
            return;
        }
}

static void close_connection(struct connection *one) {
    if (one->state == BUSY) {
        one->phase->tally.errors++;
        busy--;
    } else if (one->state == CONNECTING) {
        connecting--;
    }
    close(one->fd);
    one->state = CLOSED;
    opened--;
}

static void connected(struct connection *one) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(one->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) {
        close_connection(one);
        return;
    }
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = one};
    epoll_ctl(epoll, EPOLL_CTL_MOD, one->fd, &event);
    connecting--;
    set_idle(one);
}

static struct window *window_of(int64_t ns) {
    size_t number = (size_t)((ns - begin_ns) / window_ns);
    return &windows[number < windows_count ? number : windows_count - 1];
}

/* -- stolen time --------------------------------------------------------------------------------*/

/* Milliseconds so far in which a core had work and the host ran somebody else on it; 0 where the
   kernel does not say. The kernel counts in ticks, so a window may show its steal a little late. */
static uint64_t stolen_ms(void) {
    static int fd = -1;
    char text[512];
    if (fd < 0 && (fd = open("/proc/stat", O_RDONLY | O_CLOEXEC)) < 0)
        return 0;
    ssize_t got = pread(fd, text, sizeof text - 1, 0);
    unsigned long long ticks = 0;
    if (got <= 0)
        return 0;
    text[got] = 0;
    if (sscanf(text, "cpu %*u %*u %*u %*u %*u %*u %*u %llu", &ticks) != 1)
        return 0;
    return ticks * 1000 / (uint64_t)sysconf(_SC_CLK_TCK);
}

/* Adds what was stolen since the last look to the window that is over. */
static void watch_steal(int64_t now) {
    static int64_t next_ns;
    static uint64_t before_ms;
    if (now < next_ns)
        return;
    uint64_t sum_ms = stolen_ms();
    if (next_ns)
        window_of(next_ns - 1)->stolen_ms += (uint32_t)(sum_ms - before_ms);
    before_ms = sum_ms;
    next_ns = begin_ns + ((now - begin_ns) / window_ns + 1) * window_ns;
}

static void send_on(struct connection *one, struct phase *phase, int64_t meant_ns) {
    struct request *request = &requests[next_request];
    next_request = (next_request + 1) % requests_count;
    one->state = BUSY;
    busy++;
    one->phase = phase;
    one->meant_ns = meant_ns;
    one->tmax_ns = request->tmax_ns;
    phase->tally.sent++;
    window_of(meant_ns)->sent++;
    if (write(one->fd, request->bytes, request->count) != (ssize_t)request->count)
        close_connection(one);
}

/* -- answers ------------------------------------------------------------------------------------*/

static void count_answer(struct connection *one) {
    int64_t took_ns = now_ns() - one->meant_ns;
    struct tally *tally = &one->phase->tally;
    struct window *window = window_of(one->meant_ns);
    note(&tally->latency, took_ns);
    note(&window->latency, took_ns);
    if (took_ns > one->tmax_ns) {
        tally->late++;
        window->late++;
    }
    if (one->status == 200) {
        tally->bids++;
        window->bids++;
        note(&tally->bid_latency, took_ns);
    } else if (one->status == 204) {
        tally->nobids++;
        window->nobids++;
    } else if (one->status >= 400 && one->status < 500) {
        tally->refused++;
    } else if (one->status >= 500) {
        tally->failed++;
    } else {
        tally->other++;
    }
}

/* Reads the head in the buffer: sets status, closes, body_left. 0 while it is not whole. */
static int read_head(struct connection *one) {
    one->bytes[one->count] = 0;
    char *end = memmem(one->bytes, one->count, "\r\n\r\n", 4);
    if (end == NULL)
        return 0;
    int64_t length = 0;
    one->status = one->count > 12 ? atoi(one->bytes + 9) : 0;
    one->closes = 0;
    for (char *line = strchr(one->bytes, '\n'); line != NULL && line < end;
         line = strchr(line, '\n')) {
        line++;
        if (strncasecmp(line, "content-length:", 15) == 0)
            length = strtoll(line + 15, NULL, 10);
        else if (strncasecmp(line, "connection: close", 17) == 0)
            one->closes = 1;
    }
    one->body_left = length - (int64_t)(one->count - (size_t)(end + 4 - one->bytes));
    return 1;
}

static void readable(struct connection *one) {
    size_t at = one->body_left < 0 ? one->count : 0;
    ssize_t got = read(one->fd, one->bytes + at, BUFFER_BYTES - at);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        if (one->state == IDLE)
            reopened++;
        close_connection(one);
        return;
    }
    if (one->body_left >= 0) {
        one->body_left -= got;
    } else {
        one->count += (size_t)got;
        if (!read_head(one)) {
            if (one->count >= BUFFER_BYTES)
                close_connection(one);
            return;
        }
    }
    if (one->body_left > 0)
        return;
    count_answer(one);
    busy--;
    if (one->closes) {
        one->state = CLOSED;
        close(one->fd);
        opened--;
        reopened++;
    } else {
        set_idle(one);
    }
}

/* -- the clock ----------------------------------------------------------------------------------*/

/* Waits for answers, at most until `until_ns`. */
static void turn(int64_t until_ns) {
    struct epoll_event events[EVENTS];
    int64_t left_ns = until_ns - now_ns();
    if (left_ns > SPIN_NS) {
        left_ns -= SPIN_NS / 2;
        struct pollfd poll = {.fd = epoll, .events = POLLIN};
        struct timespec time = {left_ns / NS_PER_S, left_ns % NS_PER_S};
        ppoll(&poll, 1, &time, NULL);
    }
    int count = epoll_wait(epoll, events, EVENTS, 0);
    for (int i = 0; i < count; i++) {
        struct connection *one = events[i].data.ptr;
        if (one->state == CONNECTING)
            connected(one);
        else if (one->state != CLOSED)
            readable(one);
    }
}

static void run_open(struct phase *phase) {
    uint64_t number = 0, total = (uint64_t)(phase->rate * phase->seconds);
    while (number < total) {
        int64_t due_ns = phase->start_ns + (int64_t)((double)number / phase->rate * 1e9);
        int64_t now = now_ns();
        if (due_ns > now) {
            turn(due_ns);
            continue;
        }
        if (give_up_ns && now - due_ns > give_up_ns) {
            phase->tally.unsent++;
            window_of(due_ns)->unsent++;
            number++;
            continue;
        }
        struct connection *one = take_idle();
        if (one == NULL) {
            starved_ns = now;
            grow();
            turn(give_up_ns ? due_ns + give_up_ns : now + NS_PER_MS);
            continue;
        }
        watch_steal(now);
        if (due_ns > starved_ns)
            note(&lag, now - due_ns);
        send_on(one, phase, due_ns);
        number++;
        if (number % 32 == 0)
            turn(0); /* answers are read while many requests are due */
    }
}

static void run_closed(struct phase *phase) {
    for (int64_t now = now_ns(); now < phase->end_ns; now = now_ns()) {
        struct connection *one;
        watch_steal(now);
        while ((one = take_idle()) != NULL)
            send_on(one, phase, now_ns());
        if (opened < connections_first)
            grow();
        turn(phase->end_ns < now + NS_PER_MS ? phase->end_ns : now + NS_PER_MS);
    }
}

static void connect_first(void) {
    int64_t limit_ns = now_ns() + 10 * NS_PER_S;
    while (idle_count < connections_first) {
        if (opened < connections_first)
            grow();
        turn(now_ns() + NS_PER_MS);
        if (now_ns() > limit_ns) {
            fprintf(stderr, "no connection to port %d\n", ntohs(address.sin_port));
            exit(1);
        }
    }
}

static void plan(void) {
    int64_t at_ns = begin_ns = now_ns();
    double seconds = 0;
    for (int i = 0; i < phases_count; i++) {
        phases[i].start_ns = at_ns;
        at_ns += (int64_t)(phases[i].seconds * 1e9);
        phases[i].end_ns = at_ns;
        seconds += phases[i].seconds;
    }
    windows_count = (size_t)(seconds * 1e9 / (double)window_ns) + 2;
    windows = calloc(windows_count, sizeof *windows);
    if (windows == NULL)
        fail("calloc");
}

static void run(void) {
    for (int i = 0; i < phases_count; i++) {
        if (phases[i].rate > 0)
            run_open(&phases[i]);
        else
            run_closed(&phases[i]);
    }
    for (int64_t end_ns = now_ns() + GRACE_S * NS_PER_S; busy > 0 && now_ns() < end_ns;)
        turn(now_ns() + NS_PER_MS);
}

/* -- the result ---------------------------------------------------------------------------------*/

static void print_latency(const char *name, const struct histogram *histogram) {
    double mean = histogram->total ? (double)histogram->sum_us / (double)histogram->total : 0;
    printf("\"%s\":{\"count\":%lu,\"mean\":%.4f,\"p50\":%.3f,\"p90\":%.3f,\"p99\":%.3f,"
           "\"p999\":%.3f,\"max\":%.3f}",
           name, (unsigned long)histogram->total, mean / 1000.0, quantile_ms(histogram, 0.5),
           quantile_ms(histogram, 0.9), quantile_ms(histogram, 0.99),
           quantile_ms(histogram, 0.999), (double)histogram->max_us / 1000.0);
}

/* A window is calm when nothing was stolen in it, nor shortly before, when a queue may be left of
   it, nor right after, where the kernel may count it. */
static int is_calm(size_t number) {
    size_t first = number < 2 ? 0 : number - 2;
    for (size_t i = first; i <= number + 1 && i < windows_count; i++)
        if (windows[i].stolen_ms)
            return 0;
    return 1;
}

static void merge(struct histogram *sum, const struct histogram *part) {
    for (int i = 0; i < BUCKETS; i++)
        sum->counts[i] += part->counts[i];
    sum->total += part->total;
    sum->sum_us += part->sum_us;
    if (part->max_us > sum->max_us)
        sum->max_us = part->max_us;
}

/* The latencies of a phase's calm windows, and how many of how many those are. */
static void print_calm(const struct phase *phase) {
    static struct histogram calm;
    unsigned all = 0, count = 0;
    uint64_t stolen = 0;
    memset(&calm, 0, sizeof calm);
    for (size_t i = 0; i < windows_count; i++) {
        int64_t at_ns = begin_ns + (int64_t)i * window_ns;
        if (at_ns < phase->start_ns || at_ns >= phase->end_ns)
            continue;
        all++;
        stolen += windows[i].stolen_ms;
        if (!is_calm(i))
            continue;
        count++;
        merge(&calm, &windows[i].latency);
    }
    printf(",\"windows\":%u,\"calm_windows\":%u,\"stolen_ms\":%lu,", all, count,
           (unsigned long)stolen);
    print_latency("calm_latency_ms", &calm);
}

static void print_phase(const struct phase *phase) {
    const struct tally *tally = &phase->tally;
    printf("{\"rate\":%.1f,\"seconds\":%.3f,\"sent\":%lu,\"bids\":%lu,\"nobids\":%lu,"
           "\"refused\":%lu,\"failed\":%lu,\"other\":%lu,\"late\":%lu,\"unsent\":%lu,"
           "\"errors\":%lu,\"unanswered\":%lu,",
           phase->rate, phase->seconds, tally->sent, tally->bids, tally->nobids, tally->refused,
           tally->failed, tally->other, tally->late, tally->unsent, tally->errors,
           tally->sent - tally->latency.total - tally->errors);
    print_latency("latency_ms", &tally->latency);
    printf(",");
    print_latency("bid_latency_ms", &tally->bid_latency);
    print_calm(phase);
    printf("}");
}

static void print_windows(void) {
    printf("\"windows\":[");
    for (size_t i = 0, first = 1; i < windows_count; i++) {
        const struct window *one = &windows[i];
        if (one->sent + one->unsent == 0)
            continue;
        printf("%s{\"at_s\":%.3f,\"sent\":%u,\"bids\":%u,\"nobids\":%u,\"late\":%u,\"unsent\":%u,"
               "\"stolen_ms\":%u,\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"p999_ms\":%.3f,\"max_ms\":%.3f}",
               first ? "" : ",", (double)i * (double)window_ns / 1e9, one->sent, one->bids,
               one->nobids, one->late, one->unsent, one->stolen_ms, quantile_ms(&one->latency, 0.5),
               quantile_ms(&one->latency, 0.99), quantile_ms(&one->latency, 0.999),
               (double)one->latency.max_us / 1000.0);
        first = 0;
    }
    printf("]");
}

static void print_result(double wall_s) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double cpu_s = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                   (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    printf("{\"phases\":[");
    for (int i = 0; i < phases_count; i++) {
        printf(i ? "," : "");
        print_phase(&phases[i]);
    }
    printf("],");
    print_latency("send_lag_ms", &lag);
    printf(",\"wall_s\":%.3f,\"cpu_s\":%.3f,\"connections\":%d,\"reopened\":%lu,", wall_s, cpu_s,
           opened, (unsigned long)reopened);
    print_windows();
    printf("}\n");
}

/* -- options ------------------------------------------------------------------------------------*/

static void usage(void) {
    fprintf(stderr,
            "usage: load --port P --bodies FILE [--phase RATE:SECONDS]...\n"
            "  --path PATH             /openrtb2/generic/bid\n"
            "  --connections N         opened before the first request (32)\n"
            "  --connections-max N     opened on demand (as many as the first)\n"
            "  --give-up-ms N          drop what waits so long for a connection (0: never)\n"
            "  --tmax-ms N             for bodies without a tmax (100)\n"
            "  --window-ms N           width of a row of \"windows\" (100)\n"
            "  --header 'name: value'  one more header, may be repeated\n");
    exit(2);
}

static void add_phase(const char *text) {
    struct phase *phase = &phases[phases_count];
    if (phases_count == PHASES_MAX || sscanf(text, "%lf:%lf", &phase->rate, &phase->seconds) != 2 ||
        phase->rate < 0 || phase->seconds <= 0)
        usage();
    phases_count++;
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"port", 1, 0, 'p'}, {"bodies", 1, 0, 'b'}, {"phase", 1, 0, 'f'},
        {"path", 1, 0, 'u'}, {"connections", 1, 0, 'c'}, {"connections-max", 1, 0, 'm'},
        {"give-up-ms", 1, 0, 'g'}, {"tmax-ms", 1, 0, 't'}, {"window-ms", 1, 0, 'w'},
        {"header", 1, 0, 'h'}, {0, 0, 0, 0},
    };
    const char *bodies = NULL, *path = "/openrtb2/generic/bid";
    char headers[4096] = "", host[64];
    int port = 0, option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        size_t used = strlen(headers);
        switch (option) {
        case 'p': port = atoi(optarg); break;
        case 'b': bodies = optarg; break;
        case 'f': add_phase(optarg); break;
        case 'u': path = optarg; break;
        case 'c': connections_first = atoi(optarg); break;
        case 'm': connections_max = atoi(optarg); break;
        case 'g': give_up_ns = atoll(optarg) * NS_PER_MS; break;
        case 't': tmax_default_ns = atoll(optarg) * NS_PER_MS; break;
        case 'w': window_ns = atoll(optarg) * NS_PER_MS; break;
        case 'h': snprintf(headers + used, sizeof headers - used, "%s\r\n", optarg); break;
        default: usage();
        }
    }
    if (connections_max < connections_first)
        connections_max = connections_first;
    if (port <= 0 || bodies == NULL || connections_first <= 0 || window_ns <= 0 ||
        connections_max > CONNECTIONS_MAX)
        usage();
    if (phases_count == 0)
        add_phase("0:5");
    prctl(PR_SET_TIMERSLACK, 1000); /* default 50 us: half a bid's latency */
    struct rlimit files = {CONNECTIONS_MAX + 64, CONNECTIONS_MAX + 64};
    setrlimit(RLIMIT_NOFILE, &files);
    address.sin_family = AF_INET;
    address.sin_port = htons((unsigned short)port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    snprintf(host, sizeof host, "127.0.0.1:%d", port);
    read_bodies(bodies, host, path, headers);
    if ((epoll = epoll_create1(0)) < 0)
        fail("epoll");
    connect_first();
    plan();
    run();
    print_result((double)(now_ns() - begin_ns) / 1e9);
    return 0;
}
