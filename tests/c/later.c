/*
 * Answers that come later: from threads, timers, watched descriptors and callbacks, with a state on
 * each loop. tests/c/later.sh asks it.
 *
 * Usage: later SOCKET [RESPONSE_MS [LOOPS]]. Listens on a free port and on the Unix socket. Ends with
 * an error unless whatever was given away was let go of exactly once.
 */
#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "expect.h"

static toolb_engine *engine;
/* What was given away, and what of it was let go of. */
static atomic_int given, dropped;
static atomic_int states, waits, cancelled;

/* Something to be done for one request. */
struct job {
    toolb_token *token;
    char text[64];
    long count;
    int fds[2];
    uint64_t watch;
};

static struct job *new_job(toolb_response *response)
{
    struct job *job = calloc(1, sizeof *job);
    if (job == NULL)
        abort();
    MUST(toolb_response_later(response, &job->token));
    return job;
}

static void drop_job(void *user)
{
    atomic_fetch_add(&dropped, 1);
    free(user);
}

static void count_drop(void *user)
{
    (void)user;
    atomic_fetch_add(&dropped, 1);
}

static void spawn(void *(*run)(void *), struct job *job)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, run, job) != 0)
        abort();
    pthread_detach(thread);
}

static void keep_param(struct job *job, const toolb_request *request, const char *name)
{
    toolb_slice value;
    MUST(toolb_request_param(request, name, &value));
    snprintf(job->text, sizeof job->text, "%.*s", (int)value.len, value.data);
    job->count = strtol(job->text, NULL, 10);
}

/* GET /thread/{text}: a thread answers with the text. */
static void *answer(void *data)
{
    struct job *job = data;
    MUST(toolb_token_status(job->token, 201));
    MUST(toolb_token_field(job->token, "x-from", "thread"));
    MUST(toolb_token_answer(job->token, job->text, strlen(job->text)));
    free(job);
    return NULL;
}

static int in_thread(void *data, const toolb_request *request, toolb_response *response)
{
    struct job *job = new_job(response);
    (void)data;
    keep_param(job, request, "text");
    spawn(answer, job);
    return TOOLB_LATER;
}

/* GET /stream/{count}: a thread writes so many parts of 10,000 bytes and waits when it has to. */
static void *stream(void *data)
{
    struct job *job = data;
    char part[10000];
    toolb_status status = TOOLB_OK;
    memset(part, 's', sizeof part);
    while (job->count > 0 && status == TOOLB_OK) {
        status = toolb_token_write(job->token, part, sizeof part);
        if (status == TOOLB_OK)
            job->count--;
        else if (status == TOOLB_FULL)
            status = toolb_token_wait(job->token, -1);
    }
    if (toolb_token_end(job->token) != status)
        abort();
    free(job);
    return NULL;
}

static int streamed(void *data, const toolb_request *request, toolb_response *response)
{
    struct job *job = new_job(response);
    (void)data;
    keep_param(job, request, "count");
    spawn(stream, job);
    return TOOLB_LATER;
}

/* GET /called/{count}: the same without a thread, called when there is room. */
static void more(void *user)
{
    struct job *job = user;
    char part[10000];
    memset(part, 'c', sizeof part);
    while (job->count > 0) {
        toolb_status status = toolb_token_write(job->token, part, sizeof part);
        if (status == TOOLB_FULL)
            return;
        if (status != TOOLB_OK)
            break;
        job->count--;
    }
    /* Lets go of the job, too, once this has returned. */
    (void)toolb_token_end(job->token);
}

static void end(void *user)
{
    struct job *job = user;
    if (toolb_token_end(job->token) != TOOLB_GONE)
        abort();
    job->token = NULL;
}

static void first(void *user)
{
    struct job *job = user;
    if (job->token == NULL) {
        /* The client has left before the timer fired. */
        free(job);
        return;
    }
    atomic_fetch_add(&given, 1);
    MUST(toolb_token_on_writable(job->token, more, job, drop_job));
    more(job);
}

static int called(void *data, const toolb_request *request, toolb_response *response)
{
    struct job *job = new_job(response);
    (void)data;
    keep_param(job, request, "count");
    atomic_fetch_add(&given, 2);
    MUST(toolb_token_on_cancel(job->token, end, job, count_drop));
    /* Not from here: what ends the token in this call would take the job away. */
    MUST(toolb_timer_start(0, first, job, count_drop, NULL));
    return TOOLB_LATER;
}

/* GET /timer/{ms}: a timer answers; another one is cancelled. */
static void never(void *user)
{
    (void)user;
    abort();
}

static void ring(void *user)
{
    struct job *job = user;
    MUST(toolb_token_answer(job->token, "ring", 4));
}

static int timed(void *data, const toolb_request *request, toolb_response *response)
{
    struct job *job = new_job(response);
    uint64_t id = 0;
    (void)data;
    keep_param(job, request, "ms");
    atomic_fetch_add(&given, 2);
    MUST(toolb_timer_start((uint64_t)job->count, ring, job, drop_job, NULL));
    MUST(toolb_timer_start(0, never, NULL, count_drop, &id));
    MUST(toolb_timer_cancel(id));
    return TOOLB_LATER;
}

/* GET /watch/{text}: a thread writes the text to a pipe, the loop watches it. */
static void *feed(void *data)
{
    int fd = *(int *)data;
    free(data);
    for (const char *text = "through a pipe"; *text != '\0'; text++)
        if (write(fd, text, 1) != 1)
            abort();
    close(fd);
    return NULL;
}

static void readable(void *user, int fd, uint32_t events)
{
    struct job *job = user;
    ssize_t got;
    if (fd != job->fds[0] || (events & TOOLB_WATCH_READ) == 0)
        abort();
    /* Byte by byte: what is left is reported again. */
    got = read(fd, job->text + job->count, 1);
    if (got == 1) {
        job->count++;
        return;
    }
    MUST(toolb_token_answer(job->token, job->text, (size_t)job->count));
    close(fd);
    MUST(toolb_unwatch(job->watch));
}

static int watched(void *data, const toolb_request *request, toolb_response *response)
{
    struct job *job = new_job(response);
    int *writer = malloc(sizeof *writer);
    pthread_t thread;
    (void)data;
    (void)request;
    if (writer == NULL || pipe(job->fds) != 0)
        abort();
    *writer = job->fds[1];
    atomic_fetch_add(&given, 1);
    MUST(toolb_watch(job->fds[0], TOOLB_WATCH_READ, readable, job, drop_job, &job->watch));
    if (pthread_create(&thread, NULL, feed, writer) != 0)
        abort();
    pthread_detach(thread);
    return TOOLB_LATER;
}

/* GET /wait: nobody answers; whoever stops waiting is counted. */
static void on_cancel(void *user)
{
    struct job *job = user;
    atomic_fetch_add(&cancelled, 1);
    if (toolb_token_write(job->token, "late", 4) != TOOLB_GONE ||
        toolb_token_abort(job->token) != TOOLB_GONE)
        abort();
}

static int waiting(void *data, const toolb_request *request, toolb_response *response)
{
    struct job *job = new_job(response);
    (void)data;
    (void)request;
    atomic_fetch_add(&given, 1);
    MUST(toolb_token_on_cancel(job->token, on_cancel, job, drop_job));
    atomic_fetch_add(&waits, 1);
    return TOOLB_LATER;
}

/* GET /waits, GET /cancelled: how often that was so far. */
static int tell_count(void *data, const toolb_request *request, toolb_response *response)
{
    char text[32];
    (void)request;
    snprintf(text, sizeof text, "%d", atomic_load((atomic_int *)data));
    MUST(toolb_response_write(response, text, strlen(text)));
    return TOOLB_DONE;
}

/* GET /abort: gives up. */
static int aborted(void *data, const toolb_request *request, toolb_response *response)
{
    toolb_token *token;
    (void)data;
    (void)request;
    MUST(toolb_response_later(response, &token));
    MUST(toolb_token_abort(token));
    return TOOLB_LATER;
}

/* GET /count: what this route has served on its loop. */
struct state {
    uint32_t loop_index;
    unsigned served, ticks;
};

static void tick(void *user)
{
    struct state *state = user;
    state->ticks++;
}

static void *make_state(void *data, uint32_t loop_index)
{
    struct state *state = calloc(1, sizeof *state);
    if (state == NULL || strcmp(data, "data") != 0)
        abort();
    state->loop_index = loop_index;
    atomic_fetch_add(&states, 1);
    /* Timers may be started before the first request, and waiting ones may outlive the last. */
    atomic_fetch_add(&given, 2);
    MUST(toolb_timer_start(0, tick, state, count_drop, NULL));
    MUST(toolb_timer_start(3600000, tick, state, count_drop, NULL));
    return state;
}

static void drop_state(void *data)
{
    struct state *state = data;
    if (state->ticks > 1)
        abort();
    atomic_fetch_sub(&states, 1);
    free(state);
}

static int count(void *data, const toolb_request *request, toolb_response *response)
{
    struct state *state = toolb_request_state(request);
    char text[64];
    (void)data;
    snprintf(text, sizeof text, "%" PRIu32 ":%u", state->loop_index, ++state->served);
    MUST(toolb_response_write(response, text, strlen(text)));
    return TOOLB_DONE;
}

/* GET /stats: some counters. */
static int stats(void *data, const toolb_request *request, toolb_response *response)
{
    toolb_stats now = {.struct_size = sizeof now};
    char text[128];
    (void)data;
    (void)request;
    MUST(toolb_engine_stats(engine, &now));
    snprintf(text, sizeof text, "%" PRIu64 " %" PRIu64, now.timed_out, now.connections_active);
    MUST(toolb_response_write(response, text, strlen(text)));
    return TOOLB_DONE;
}

static void on_signal(int number)
{
    (void)number;
    (void)toolb_engine_stop(engine);
}

int main(int argc, char **argv)
{
    static char data[] = "data";
    toolb_options options = {.struct_size = sizeof options};
    toolb_route counting = {.struct_size = sizeof counting};
    toolb_stats last = {.struct_size = sizeof last};
    char address[256];
    if (argc < 2)
        return 2;
    options.timeout_graceful_shutdown_ms = 100;
    options.timeout_response_ms = argc > 2 ? (uint32_t)atoi(argv[2]) : TOOLB_OFF;
    /* A client that counts over one connection may pause. */
    options.timeout_keep_alive_ms = 3600000;
    options.loops = argc > 3 ? (uint32_t)atoi(argv[3]) : 2;
    options.server = "";
    MUST(toolb_engine_new(&options, &engine));
    MUST(toolb_engine_listen(engine, "127.0.0.1", 0));
    MUST(toolb_engine_listen_unix(engine, argv[1], 0600));
    MUST(toolb_engine_route(engine, "GET", "/thread/{text}", in_thread, NULL));
    MUST(toolb_engine_route(engine, "GET", "/stream/{count}", streamed, NULL));
    MUST(toolb_engine_route(engine, "GET", "/called/{count}", called, NULL));
    MUST(toolb_engine_route(engine, "GET", "/timer/{ms}", timed, NULL));
    MUST(toolb_engine_route(engine, "GET", "/watch", watched, NULL));
    MUST(toolb_engine_route(engine, "GET", "/wait", waiting, NULL));
    MUST(toolb_engine_route(engine, "GET", "/waits", tell_count, &waits));
    MUST(toolb_engine_route(engine, "GET", "/cancelled", tell_count, &cancelled));
    MUST(toolb_engine_route(engine, "GET", "/abort", aborted, NULL));
    MUST(toolb_engine_route(engine, "GET", "/stats", stats, NULL));
    counting.handler = count;
    counting.user_data = data;
    counting.make_state = make_state;
    counting.drop_state = drop_state;
    MUST(toolb_engine_add_route(engine, "GET", "/count", &counting));
    signal(SIGTERM, on_signal);
    MUST(toolb_engine_start(engine));
    MUST(toolb_engine_address(engine, 0, address, sizeof address, NULL));
    printf("serving on %s\n", address);
    fflush(stdout);
    MUST(toolb_engine_run(engine));
    MUST(toolb_engine_stats(engine, &last));
    toolb_engine_free(engine);
    if (last.requests == 0 || last.connections_active != 0) {
        fprintf(stderr, "%" PRIu64 " requests, %" PRIu64 " connections\n", last.requests,
                last.connections_active);
        return 1;
    }
    if (atomic_load(&states) != 0 || atomic_load(&given) != atomic_load(&dropped)) {
        fprintf(stderr, "%d states are left; %d given, %d dropped\n", atomic_load(&states),
                atomic_load(&given), atomic_load(&dropped));
        return 1;
    }
    return 0;
}
