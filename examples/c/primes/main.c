/*
 * A handler that takes long: counts primes on a thread of its own, tells how far it is, and gives up
 * when the client leaves. Meanwhile the loop serves everybody else.
 *
 *     ./primes [PORT]
 *
 *     curl -N localhost:8080/primes/10000000
 *     curl localhost:8080/running
 */
#include <pthread.h>
#include <stdatomic.h>

#include "../common/serve.h"

/* Shared by the thread that computes and the loop that may cancel; the last one frees it. */
struct job {
    toolb_token *token;
    long limit;
    atomic_int cancelled;
    atomic_int owners;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t all_done = PTHREAD_COND_INITIALIZER;
static int running;

static void count_running(int change)
{
    pthread_mutex_lock(&lock);
    running += change;
    if (running == 0)
        pthread_cond_broadcast(&all_done);
    pthread_mutex_unlock(&lock);
}

static void let_go(void *data)
{
    struct job *job = data;
    if (atomic_fetch_sub(&job->owners, 1) == 1)
        free(job);
}

static void cancel(void *data)
{
    struct job *job = data;
    atomic_store(&job->cancelled, 1);
}

static int is_prime(long number)
{
    for (long by = 2; by * by <= number; ++by)
        if (number % by == 0)
            return 0;
    return number > 1;
}

static void *compute(void *data)
{
    struct job *job = data;
    long found = 0;
    char text[64];
    for (long number = 0; number < job->limit && !atomic_load(&job->cancelled); ++number) {
        found += is_prime(number);
        if (number % (job->limit / 10 + 1) == job->limit / 10) {
            int len = snprintf(text, sizeof text, "%ld below %ld\n", found, number + 1);
            /* Progress that finds no room may be left out. */
            (void)toolb_token_write(job->token, text, (size_t)len);
        }
    }
    /* If nobody waits any more this does no harm; the token has to be ended in any case. */
    (void)toolb_token_answer(job->token, text,
                             (size_t)snprintf(text, sizeof text, "%ld\n", found));
    let_go(job);
    count_running(-1);
    return NULL;
}

static int primes(void *data, const toolb_request *request, toolb_response *response)
{
    toolb_slice text;
    char digits[16] = "";
    pthread_t thread;
    struct job *made;
    (void)data;
    if (toolb_request_param(request, "limit", &text) == TOOLB_OK && text.len < sizeof digits)
        memcpy(digits, text.data, text.len);
    if (strspn(digits, "0123456789") != text.len || digits[0] == '\0') {
        (void)toolb_response_status(response, 400);
        (void)toolb_response_write(response, "give a number of up to 15 digits\n", 33);
        return TOOLB_DONE;
    }
    made = calloc(1, sizeof *made);
    if (made == NULL || toolb_response_later(response, &made->token) != TOOLB_OK)
        abort();
    made->limit = atol(digits);
    atomic_init(&made->owners, 2);
    (void)toolb_token_on_cancel(made->token, cancel, made, let_go);
    count_running(+1);
    if (pthread_create(&thread, NULL, compute, made) == 0) {
        pthread_detach(thread);
    } else {
        (void)toolb_token_abort(made->token);
        let_go(made);
        count_running(-1);
    }
    return TOOLB_LATER;
}

static int tell_running(void *data, const toolb_request *request, toolb_response *response)
{
    char text[16];
    (void)data;
    (void)request;
    pthread_mutex_lock(&lock);
    (void)toolb_response_write(response, text,
                               (size_t)snprintf(text, sizeof text, "%d\n", running));
    pthread_mutex_unlock(&lock);
    return TOOLB_DONE;
}

int main(int argc, char **argv)
{
    toolb_options options = {.struct_size = sizeof options};
    toolb_engine *engine = NULL;
    int code;
    options.timeout_graceful_shutdown_ms = 1000;
    check(engine, toolb_engine_new(&options, &engine));
    check(engine, toolb_engine_listen(engine, "127.0.0.1", port_of(argc, argv)));
    check(engine, toolb_engine_route(engine, "GET", "/primes/{limit}", primes, NULL));
    check(engine, toolb_engine_route(engine, "GET", "/running", tell_running, NULL));
    code = serve(engine);
    /* The engine has told the threads to give up. */
    pthread_mutex_lock(&lock);
    while (running > 0)
        pthread_cond_wait(&all_done, &lock);
    pthread_mutex_unlock(&lock);
    return code;
}
