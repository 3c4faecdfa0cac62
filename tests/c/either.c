/*
 * One set of handlers, run by the engine or by a consumer in the same process: what they see and what
 * they answer is the same. tests/c/either.sh asks it.
 *
 * Usage: either inline|consumer SOCKET [RESPONSE_MS]. Listens on a free port and on the Unix socket;
 * ends with SIGTERM. Fails unless whatever was given away was let go of exactly once.
 */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "expect.h"

enum { THREADS = 4, PART = 50000 };

static toolb_engine *engine;
static toolb_consumer *consumer;

/* Requests for the threads to answer; the last in is the first out. */
struct job {
    struct job *next;
    toolb_token *token;
    long parts;
    int breaks;
    char text[32];
};
static struct job *jobs;
static int closed;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static atomic_int given, dropped, cancelled, full, writable, states;

static void say(toolb_response *response, toolb_slice text)
{
    MUST(toolb_response_write(response, text.data, text.len));
}

static void say_text(toolb_response *response, const char *text)
{
    MUST(toolb_response_write(response, text, strlen(text)));
}

/* Every field, a line each. */
static int fields(void *data, const toolb_request *request, toolb_response *response)
{
    const size_t count = toolb_request_field_count(request);
    toolb_slice name, value;
    (void)data;
    for (size_t i = 0; i < count; i++) {
        MUST(toolb_request_field_at(request, i, &name, &value));
        say(response, name);
        say_text(response, "=");
        say(response, value);
        say_text(response, "\n");
    }
    EXPECT(toolb_request_field_at(request, count, &name, &value), TOOLB_NOT_FOUND);
    EXPECT(toolb_request_field_at(request, SIZE_MAX, &name, &value), TOOLB_NOT_FOUND);
    MUST(toolb_request_field_at(request, 0, NULL, NULL));
    return TOOLB_DONE;
}

static int peer(void *data, const toolb_request *request, toolb_response *response)
{
    uint16_t port = 1;
    const toolb_slice host = toolb_request_peer(request, &port);
    (void)data;
    REQUIRE(toolb_request_peer(request, NULL).len == host.len);
    REQUIRE((host.len == 0) == (port == 0));
    say_text(response, "from ");
    say(response, host);
    return TOOLB_DONE;
}

/* Says the parameter that it was told the name of. */
static int param(void *data, const toolb_request *request, toolb_response *response)
{
    toolb_slice value;
    EXPECT(toolb_request_param(request, "none", &value), TOOLB_NOT_FOUND);
    MUST(toolb_request_param(request, data, &value));
    say(response, toolb_request_method(request));
    say_text(response, " ");
    say(response, value);
    REQUIRE(toolb_request_state(request) == NULL);
    return TOOLB_DONE;
}

static void *make_count(void *data, uint32_t loop)
{
    int *count = calloc(1, sizeof *count);
    REQUIRE(data == &states && loop == 0 && count != NULL);
    atomic_fetch_add(&states, 1);
    return count;
}

static void drop_count(void *count)
{
    atomic_fetch_sub(&states, 1);
    free(count);
}

static int counting(void *data, const toolb_request *request, toolb_response *response)
{
    int *count = toolb_request_state(request);
    char text[16];
    REQUIRE(data == &states);
    snprintf(text, sizeof text, "%d", ++*count);
    say_text(response, text);
    return TOOLB_DONE;
}

static void drop(void *user)
{
    REQUIRE(user == &given);
    atomic_fetch_add(&dropped, 1);
}

/* Callbacks of a consumer's tokens come on the thread that serves, which is in use. */
static pthread_t serving_by;

static void expect_thread(void)
{
    if (consumer == NULL)
        return;
    REQUIRE(pthread_equal(pthread_self(), serving_by));
    EXPECT(toolb_consumer_flush(consumer), TOOLB_BAD_STATE);
    EXPECT(toolb_timer_cancel(1), TOOLB_WRONG_LOOP);
}

static void count_call(void *user)
{
    REQUIRE(user == &given);
    expect_thread();
    atomic_fetch_add(&cancelled, 1);
}

static void count_room(void *user)
{
    REQUIRE(user == &given);
    expect_thread();
    atomic_fetch_add(&writable, 1);
}

static toolb_token *take_token(toolb_response *response)
{
    toolb_token *token = NULL, *second = NULL;
    MUST(toolb_response_status(response, 202));
    MUST(toolb_response_later(response, &token));
    EXPECT(toolb_response_later(response, &second), TOOLB_BAD_STATE);
    EXPECT(toolb_token_wait(token, 0), TOOLB_BAD_STATE);
    atomic_fetch_add(&given, 2);
    MUST(toolb_token_on_cancel(token, count_call, &given, drop));
    MUST(toolb_token_on_writable(token, count_room, &given, drop));
    return token;
}

/* A thread answers: all at once, or in so many parts, be it with the last one missing. */
static int later(void *data, const toolb_request *request, toolb_response *response)
{
    struct job *job = calloc(1, sizeof *job);
    toolb_slice text;
    REQUIRE(job != NULL);
    MUST(toolb_request_param(request, "text", &text));
    REQUIRE(text.len < sizeof job->text);
    memcpy(job->text, text.data, text.len);
    job->parts = data == NULL ? 0 : atol(job->text);
    job->breaks = data != NULL && strcmp(data, "in parts") != 0;
    job->token = take_token(response);
    pthread_mutex_lock(&lock);
    job->next = jobs;
    jobs = job;
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&lock);
    return TOOLB_LATER;
}

static void answer(struct job *job)
{
    static char part[PART];
    toolb_status status = TOOLB_OK;
    for (long i = 0; i < job->parts && status != TOOLB_GONE; i++) {
        while ((status = toolb_token_write(job->token, part, PART)) == TOOLB_FULL) {
            atomic_fetch_add(&full, 1);
            (void)toolb_token_wait(job->token, -1);
        }
    }
    if (job->breaks)
        (void)toolb_token_abort(job->token);
    else if (job->parts > 0)
        (void)toolb_token_end(job->token);
    else
        (void)toolb_token_answer(job->token, job->text, strlen(job->text));
    free(job);
}

static void *answers(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&lock);
    while (jobs != NULL || !closed) {
        struct job *job = jobs;
        if (job == NULL) {
            pthread_cond_wait(&changed, &lock);
            continue;
        }
        jobs = job->next;
        pthread_mutex_unlock(&lock);
        answer(job);
        pthread_mutex_lock(&lock);
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

/* Tokens that nobody answers by: ended when the program has served. */
static toolb_token *held[100];
static atomic_int held_count;

static int hold(void *data, const toolb_request *request, toolb_response *response)
{
    (void)data;
    (void)request;
    held[atomic_fetch_add(&held_count, 1)] = take_token(response);
    return TOOLB_LATER;
}

static int aborted(void *data, const toolb_request *request, toolb_response *response)
{
    (void)data;
    (void)request;
    MUST(toolb_token_abort(take_token(response)));
    return TOOLB_LATER;
}

/* A token, or that it answers later, but not both. */
static int confused(void *data, const toolb_request *request, toolb_response *response)
{
    toolb_token *token;
    (void)request;
    if (data == NULL)
        return TOOLB_LATER;
    token = take_token(response);
    held[atomic_fetch_add(&held_count, 1)] = token;
    return TOOLB_DONE;
}

static int counted(void *data, const toolb_request *request, toolb_response *response)
{
    char text[64];
    (void)data;
    (void)request;
    snprintf(text, sizeof text, "%d cancelled, %d held", cancelled, held_count);
    say_text(response, text);
    return TOOLB_DONE;
}

/* Whether it has happened at all. */
static int happened(void *data, const toolb_request *request, toolb_response *response)
{
    (void)request;
    say_text(response, atomic_load((atomic_int *)data) > 0 ? "yes" : "no");
    return TOOLB_DONE;
}

static toolb_status add(const char *method, const char *pattern, const toolb_route *route)
{
    return consumer != NULL ? toolb_consumer_add_route(consumer, method, pattern, route)
                            : toolb_engine_add_route(engine, method, pattern, route);
}

static toolb_status route(const char *method, const char *pattern, toolb_handler handler, void *data)
{
    return consumer != NULL ? toolb_consumer_route(consumer, method, pattern, handler, data)
                            : toolb_engine_route(engine, method, pattern, handler, data);
}

static void add_routes(void)
{
    const toolb_route with_state = {
        .struct_size = sizeof with_state,
        .handler = counting,
        .user_data = &states,
        .make_state = make_count,
        .drop_state = drop_count,
    };
    const toolb_route empty = {.struct_size = sizeof empty}, small = {.struct_size = 8};
    char text[256];
    MUST(route("GET", "/fields", fields, NULL));
    MUST(route("GET", "/peer", peer, NULL));
    MUST(route("GET", "/user/{id}", param, "id"));
    MUST(route("*", "/files/{*rest}", param, "rest"));
    MUST(route("PUT", "/user/{name}", param, "name"));
    MUST(add("GET", "/count", &with_state));
    MUST(route("GET", "/later/{text}", later, NULL));
    MUST(route("GET", "/parts/{text}", later, "in parts"));
    MUST(route("GET", "/hold", hold, NULL));
    MUST(route("GET", "/abort", aborted, NULL));
    MUST(route("GET", "/break/{text}", later, "the last part"));
    MUST(route("GET", "/confused/late", confused, NULL));
    MUST(route("GET", "/confused/token", confused, "token"));
    MUST(route("GET", "/counted", counted, NULL));
    MUST(route("GET", "/full", happened, &full));
    MUST(route("GET", "/roomy", happened, &writable));

    EXPECT(add("GET", "/x", NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(add("GET", "/x", &empty), TOOLB_NULL_ARGUMENT);
    EXPECT(add("GET", "/x", &small), TOOLB_BAD_STRUCT_SIZE);
    EXPECT(route(NULL, "/x", peer, NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(route("GET", NULL, peer, NULL), TOOLB_NULL_ARGUMENT);
    EXPECT(route("GET", "/\xff", peer, NULL), TOOLB_NOT_UTF8);
    EXPECT(route("GET", "/fields", peer, NULL), TOOLB_BAD_ARGUMENT);
    EXPECT(route("GET", "/user/:id", peer, NULL), TOOLB_BAD_ARGUMENT);
    if (consumer != NULL)
        MUST(toolb_last_error(text, sizeof text, NULL));
    else
        MUST(toolb_engine_error(engine, text, sizeof text, NULL));
    REQUIRE(strstr(text, "{id} instead of :id") != NULL);
}

static int ending[2];

static void on_signal(int number)
{
    if (write(ending[1], &number, 1) != 1)
        abort();
}

static void *run_engine(void *unused)
{
    (void)unused;
    MUST(toolb_engine_run(engine));
    return NULL;
}

static void *run_consumer(void *unused)
{
    (void)unused;
    serving_by = pthread_self();
    MUST(toolb_consumer_run(consumer, NULL, NULL));
    return NULL;
}

static void serve(int by_consumer, const char *socket, const char *response_ms)
{
    toolb_options options = {.struct_size = sizeof options};
    pthread_t serving, consuming;
    char url[128], byte;
    options.timeout_graceful_shutdown_ms = TOOLB_OFF;
    options.timeout_response_ms = response_ms == NULL ? 0 : (uint32_t)atoi(response_ms);
    MUST(toolb_engine_new(&options, &engine));
    MUST(toolb_engine_listen(engine, "127.0.0.1", 0));
    MUST(toolb_engine_listen_unix(engine, socket, 0));
    if (by_consumer) {
        MUST(toolb_engine_pool(engine, ""));
        MUST(toolb_engine_start(engine));
        MUST(toolb_engine_consumer(engine, NULL, &consumer));
        EXPECT(toolb_consumer_run(consumer, NULL, NULL), TOOLB_NULL_ARGUMENT);
        add_routes();
        REQUIRE(pthread_create(&consuming, NULL, run_consumer, NULL) == 0);
    } else {
        add_routes();
        MUST(toolb_engine_start(engine));
    }
    REQUIRE(pthread_create(&serving, NULL, run_engine, NULL) == 0);
    MUST(toolb_engine_address(engine, 0, url, sizeof url, NULL));
    printf("serving on %s\n", url);
    fflush(stdout);
    REQUIRE(read(ending[0], &byte, 1) == 1);
    if (by_consumer) {
        /* It has to wait for the tokens that are out: nobody answers by them, until the engine ends. */
        MUST(toolb_consumer_stop(consumer));
    }
    MUST(toolb_engine_stop(engine));
    REQUIRE(pthread_join(serving, NULL) == 0);
    if (by_consumer) {
        REQUIRE(pthread_join(consuming, NULL) == 0);
        MUST(toolb_consumer_free(consumer));
    }
    toolb_engine_free(engine);
}

int main(int argc, char **argv)
{
    const struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    pthread_t threads[THREADS];
    if (argc < 3)
        return 2;
    REQUIRE(pipe(ending) == 0 && sigaction(SIGTERM, &action, NULL) == 0);
    for (int i = 0; i < THREADS; i++)
        REQUIRE(pthread_create(&threads[i], NULL, answers, NULL) == 0);
    serve(strcmp(argv[1], "consumer") == 0, argv[2], argc > 3 ? argv[3] : NULL);
    pthread_mutex_lock(&lock);
    closed = 1;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < THREADS; i++)
        REQUIRE(pthread_join(threads[i], NULL) == 0);
    /* Each of them has been cancelled, and may be used until it is ended. */
    REQUIRE(cancelled >= held_count);
    for (int i = 0; i < held_count; i++) {
        EXPECT(toolb_token_write(held[i], "x", 1), TOOLB_GONE);
        EXPECT(toolb_token_wait(held[i], -1), TOOLB_GONE);
        EXPECT(toolb_token_on_cancel(held[i], count_call, &given, NULL), TOOLB_GONE);
        EXPECT(i % 2 == 0 ? toolb_token_end(held[i]) : toolb_token_abort(held[i]), TOOLB_GONE);
    }
    REQUIRE(states == 0 && given > 0 && dropped == given);
    return 0;
}
