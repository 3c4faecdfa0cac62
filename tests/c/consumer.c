/*
 * A consumer for tests: waits on several descriptors of its own by poll(2), streams both ways and
 * does nothing that blocks, except where it is asked to.
 *
 *   consumer [window=N]        the events of many exchanges in one loop
 *   consumer run [window=N]    the same paths, as far as a handler can, by toolb_consumer_run
 *
 * What ROBUST_DIR and the paths mean is told in tests/robust/app.py.
 */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <toolb.h>

#define BLOCK (64 * 1024)

/* What one exchange is at. */
typedef struct job {
    struct job *next, **link;
    uint64_t exchange;
    enum { ECHO, SLEEP, STREAM, UPLOAD, WHOLE } kind;
    char id[64];
    /* Body bytes that wait for room, or for the rest of the body. */
    char *bytes;
    size_t len, capacity;
    int end;
    /* When to go on, in ms; 0: not by the clock. */
    long long due;
    size_t size, sent, step;
    long gap;
    int full;
} job;

static toolb_consumer *consumer;
static job *jobs;
static int events = -1;
static char payload[BLOCK];
static char served[4096];

static void fail(const char *what, toolb_status status)
{
    char text[256] = "";
    toolb_last_error(text, sizeof text, NULL);
    fprintf(stderr, "consumer: %s: %d (%s): %s\n", what, status, toolb_status_text(status), text);
    exit(1);
}

/* A client may leave at any time; everything else is a mistake of this program. */
static void check(const char *what, toolb_status status)
{
    if (status != TOOLB_OK && status != TOOLB_GONE)
        fail(what, status);
}

static long long now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

static void note(const char *event, const char *id)
{
    char line[128];
    int len = snprintf(line, sizeof line, "%s %s %d\n", event, id, (int)getpid());
    if (events >= 0 && write(events, line, (size_t)len) < 0)
        perror("events");
}

static int is(toolb_slice slice, const char *text)
{
    return slice.len == strlen(text) && memcmp(slice.data, text, slice.len) == 0;
}

static long number(const toolb_request *request, const char *name, long otherwise)
{
    toolb_slice query = toolb_request_query(request);
    size_t len = strlen(name), at = 0;
    while (at + len < query.len) {
        if (memcmp(query.data + at, name, len) == 0 && query.data[at + len] == '=') {
            /* Not NUL-terminated: copy. */
            char text[24] = "";
            size_t n = query.len - at - len - 1;
            memcpy(text, query.data + at + len + 1, n < 23 ? n : 23);
            return strtol(text, NULL, 10);
        }
        const char *amp = memchr(query.data + at, '&', query.len - at);
        if (amp == NULL)
            break;
        at = (size_t)(amp - query.data) + 1;
    }
    return otherwise;
}

static void take_id(const toolb_request *request, char *id, size_t capacity)
{
    toolb_slice value;
    size_t len = 0;
    if (toolb_request_field(request, "X-Id", &value) == TOOLB_OK) {
        len = value.len < capacity ? value.len : capacity - 1;
        memcpy(id, value.data, len);
    } else {
        id[len++] = '-';
    }
    id[len] = '\0';
}

static void head(uint64_t exchange, const char *id)
{
    char pid[16];
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    check("field", toolb_exchange_field(consumer, exchange, "content-type", "text/plain"));
    check("field", toolb_exchange_field(consumer, exchange, "x-id", id));
    check("field", toolb_exchange_field(consumer, exchange, "x-pid", pid));
}

static job *new_job(uint64_t exchange, int kind, const char *id)
{
    job *j = calloc(1, sizeof *j);
    if (j == NULL)
        abort();
    j->exchange = exchange;
    j->kind = kind;
    strcpy(j->id, id);
    j->link = &jobs;
    j->next = jobs;
    if (jobs != NULL)
        jobs->link = &j->next;
    jobs = j;
    check("set_user_data", toolb_exchange_set_user_data(consumer, exchange, j));
    return j;
}

static void free_job(job *j)
{
    *j->link = j->next;
    if (j->next != NULL)
        j->next->link = j->link;
    free(j->bytes);
    free(j);
}

static void keep(job *j, toolb_slice data)
{
    if (data.len == 0)
        return;
    if (j->len + data.len > j->capacity) {
        j->capacity = (j->len + data.len) * 2;
        j->bytes = realloc(j->bytes, j->capacity);
        if (j->bytes == NULL)
            abort();
    }
    memcpy(j->bytes + j->len, data.data, data.len);
    j->len += data.len;
}

static void over(job *j)
{
    check("end", toolb_exchange_end(consumer, j->exchange));
    check("done", toolb_exchange_done(consumer, j->exchange));
    free_job(j);
}

/* The bytes of a stream: the id, and then the payload, over and over. */
static void fill(const job *j, size_t at, char *out, size_t len)
{
    for (size_t i = 0; i < len; i++)
        out[i] = payload[(at + i) % BLOCK];
    size_t id_len = strlen(j->id);
    for (size_t i = at; i < at + len && i < id_len; i++)
        out[i - at] = j->id[i];
}

static void go_on_streaming(job *j)
{
    static char part[BLOCK];
    while (j->sent < j->size) {
        size_t len = j->size - j->sent < j->step ? j->size - j->sent : j->step;
        len = len < BLOCK ? len : BLOCK;
        fill(j, j->sent, part, len);
        toolb_status status = toolb_exchange_write(consumer, j->exchange, part, len);
        if (status == TOOLB_FULL)
            return;
        check("write", status);
        if (status == TOOLB_GONE)
            return;
        j->sent += len;
        if (j->gap > 0) {
            j->due = now_ms() + j->gap;
            return;
        }
    }
    over(j);
}

/* Sends what waits. While there is no room no more of the body is asked for. */
static void go_on_echoing(job *j)
{
    if (j->len > 0) {
        toolb_status status = toolb_exchange_write(consumer, j->exchange, j->bytes, j->len);
        if (status == TOOLB_FULL) {
            check("pause", toolb_exchange_pause(consumer, j->exchange));
            return;
        }
        check("write", status);
        j->len = 0;
        check("resume", toolb_exchange_resume(consumer, j->exchange));
    }
    if (j->end)
        over(j);
}

static void take_body(job *j, toolb_slice data, int end)
{
    j->end |= end;
    switch (j->kind) {
    case ECHO:
        if (j->len == 0 && data.len > 0 &&
            toolb_exchange_write(consumer, j->exchange, data.data, data.len) == TOOLB_OK)
            data.len = 0;
        keep(j, data);
        go_on_echoing(j);
        break;
    case WHOLE:
        keep(j, data);
        if (j->end) {
            check("answer", toolb_exchange_answer(consumer, j->exchange, j->bytes, j->len));
            free_job(j);
        }
        break;
    case UPLOAD:
        j->size += data.len;
        if (j->end) {
            char text[128];
            int len = snprintf(text, sizeof text, "%s %zu", j->id, j->size);
            check("answer", toolb_exchange_answer(consumer, j->exchange, text, (size_t)len));
            free_job(j);
        }
        break;
    default:
        break;
    }
}

static void sleep_ms(long ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    /* not-sync: the delay is what the test asks for */
    while (nanosleep(&t, &t) < 0 && errno == EINTR) {
    }
}

static void begin(const toolb_event *event)
{
    toolb_slice path = toolb_request_path(event->request);
    uint64_t x = event->exchange;
    int end = (event->flags & TOOLB_EVENT_END) != 0;
    char id[64];
    job *j;
    take_id(event->request, id, sizeof id);
    note("BEGIN", id);
    head(x, id);
    if (is(path, "/sleep")) {
        j = new_job(x, SLEEP, id);
        j->due = now_ms() + number(event->request, "ms", 0);
    } else if (is(path, "/stream")) {
        long parts = number(event->request, "parts", 16);
        j = new_job(x, STREAM, id);
        j->size = (size_t)number(event->request, "size", 0);
        j->step = (j->size + (size_t)parts - 1) / (size_t)parts;
        j->gap = number(event->request, "gap", 0);
        check("head", toolb_exchange_write(consumer, x, NULL, 0));
        go_on_streaming(j);
    } else if (is(path, "/whole") || is(path, "/upload")) {
        take_body(new_job(x, is(path, "/whole") ? WHOLE : UPLOAD, id), event->data, end);
    } else if (is(path, "/echo")) {
        check("head", toolb_exchange_write(consumer, x, NULL, 0));
        take_body(new_job(x, ECHO, id), event->data, end);
    } else if (is(path, "/file")) {
        long length = number(event->request, "length", -1);
        int fd = open(served, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            fail("open", TOOLB_OK);
        check("file", toolb_exchange_file(consumer, x, fd,
                                          (uint64_t)number(event->request, "offset", 0),
                                          length < 0 ? TOOLB_REST : (uint64_t)length));
        close(fd);
    } else if (is(path, "/abort")) {
        check("abort", toolb_exchange_abort(consumer, x));
    } else if (is(path, "/forbidden")) {
        check("status", toolb_exchange_status(consumer, x, 403));
        check("answer", toolb_exchange_answer(consumer, x, NULL, 0));
    } else {
        if (is(path, "/leave"))
            check("leave", toolb_consumer_leave(consumer));
        if (is(path, "/block"))
            sleep_ms(number(event->request, "ms", 0));
        check("answer", toolb_exchange_answer(consumer, x, id, strlen(id)));
        note("END", id);
    }
}

/* False: there is nothing left to wait for. */
static int take(const toolb_event *event)
{
    job *j = event->user_data;
    switch (event->kind) {
    case TOOLB_EVENT_REQUEST:
        begin(event);
        break;
    case TOOLB_EVENT_BODY:
        if (j != NULL)
            take_body(j, event->data, (event->flags & TOOLB_EVENT_END) != 0);
        break;
    case TOOLB_EVENT_WRITABLE:
        if (j->kind == ECHO)
            go_on_echoing(j);
        else
            go_on_streaming(j);
        break;
    case TOOLB_EVENT_CANCELLED:
        note("DISCONNECT", j == NULL ? "-" : j->id);
        check("done", toolb_exchange_done(consumer, event->exchange));
        if (j != NULL)
            free_job(j);
        break;
    case TOOLB_EVENT_BODY_ABORTED:
        check("abort", toolb_exchange_abort(consumer, event->exchange));
        if (j != NULL)
            free_job(j);
        break;
    case TOOLB_EVENT_HANG_UP:
        return 0;
    default:
        break;
    }
    return 1;
}

/* Goes on with what is due; how long to wait for the next, -1 for ever. */
static int fire(void)
{
    long long now = now_ms(), next = -1;
    for (job *j = jobs, *after; j != NULL; j = after) {
        after = j->next;
        if (j->due == 0)
            continue;
        if (j->due > now) {
            next = next < 0 || j->due < next ? j->due : next;
            continue;
        }
        j->due = 0;
        if (j->kind == STREAM) {
            go_on_streaming(j);
            /* It may have become due anew, or be gone; look at all of them again. */
            return fire();
        }
        check("answer", toolb_exchange_answer(consumer, j->exchange, j->id, strlen(j->id)));
        note("END", j->id);
        free_job(j);
    }
    return next < 0 ? -1 : (int)(next - now);
}

static int serve_events(void)
{
    int fd, may_block, timeout;
    size_t got;
    toolb_event event;
    check("fd", toolb_consumer_fd(consumer, &fd));
    check("ready", toolb_consumer_ready(consumer));
    for (;;) {
        toolb_status status = toolb_consumer_poll(consumer, 32, &got);
        if (status != TOOLB_OK)
            fail("poll", status);
        do {
            memset(&event, 0, sizeof event);
            event.struct_size = sizeof event;
            check("next", toolb_consumer_next(consumer, &event));
            if (!take(&event))
                return 0;
        } while (event.kind != TOOLB_EVENT_NONE);
        timeout = fire();
        if (got > 0 || timeout == 0)
            continue;
        check("arm", toolb_consumer_arm(consumer, &may_block));
        if (may_block) {
            struct pollfd entry = {fd, POLLIN, 0};
            if (poll(&entry, 1, timeout) < 0 && errno != EINTR)
                return 1;
        }
    }
}

static int handle(void *data, const toolb_request *request, toolb_response *response)
{
    toolb_slice path = toolb_request_path(request), body = toolb_request_body(request), param;
    char id[64], pid[16];
    (void)data;
    take_id(request, id, sizeof id);
    note("BEGIN", id);
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    check("field", toolb_response_field(response, "x-id", id));
    check("field", toolb_response_field(response, "x-pid", pid));
    if (toolb_request_param(request, "id", &param) != TOOLB_NOT_FOUND)
        fail("param", TOOLB_OK);
    if (is(path, "/block") || is(path, "/sleep"))
        sleep_ms(number(request, "ms", 0));
    if (is(path, "/whole") || is(path, "/echo"))
        check("write", toolb_response_write(response, body.data, body.len));
    else if (is(path, "/forbidden"))
        check("status", toolb_response_status(response, 403));
    else
        check("write", toolb_response_write(response, id, strlen(id)));
    /* The consumer is in use by toolb_consumer_run. */
    if (toolb_consumer_flush(consumer) != TOOLB_BAD_STATE)
        fail("flush from a handler", TOOLB_OK);
    if (is(path, "/stop"))
        check("stop", toolb_consumer_stop(consumer));
    /* There is no token: nobody would answer. */
    if (is(path, "/later"))
        return TOOLB_LATER;
    return is(path, "/close") ? TOOLB_CLOSE : TOOLB_DONE;
}

int main(int argc, char **argv)
{
    toolb_consumer_options options;
    toolb_status status;
    const char *directory = getenv("ROBUST_DIR");
    int by_handler = 0, result;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.name = "c-test";
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "window=", 7) == 0)
            options.window = (uint32_t)atoi(argv[i] + 7);
        by_handler |= strcmp(argv[i], "run") == 0;
    }
    if (directory != NULL) {
        char path[4096];
        snprintf(path, sizeof path, "%s/events", directory);
        events = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        snprintf(served, sizeof served, "%s/served", directory);
        snprintf(path, sizeof path, "%s/payload", directory);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0 && read(fd, payload, sizeof payload) != (ssize_t)sizeof payload)
            fail("payload", TOOLB_OK);
        if (fd >= 0)
            close(fd);
    }
    status = toolb_consumer_attach(NULL, &options, &consumer);
    if (status != TOOLB_OK)
        fail("attach", status);
    {
        char pid[16];
        snprintf(pid, sizeof pid, "%d", (int)getpid());
        note("STARTUP", pid);
    }
    if (by_handler) {
        status = toolb_consumer_run(consumer, handle, NULL);
        result = status == TOOLB_OK ? 0 : 1;
        if (status != TOOLB_OK && status != TOOLB_HANG_UP)
            fail("run", status);
    } else {
        result = serve_events();
    }
    while (jobs != NULL)
        free_job(jobs);
    check("free", toolb_consumer_free(consumer));
    if (events >= 0)
        close(events);
    return result;
}
