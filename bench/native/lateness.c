/*
 * How late the timeouts of raw streams come. Connections that stay silent wait 50 ms over and over
 * (toolb_stream_want); each timeout is compared with the moment at which it was due.
 *
 *     lateness SECONDS [STREAMS]      prints one line of JSON, times in microseconds
 */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <toolb.h>
#include <unistd.h>

enum { WAIT_MS = 50, MOST_STREAMS = 1024, MOST_SAMPLES = 1 << 20 };

struct wait {
	double since;
};

static struct wait waits[MOST_STREAMS];
static int accepted;
static double samples[MOST_SAMPLES];
static size_t sample_count;
static double finish;
static toolb_engine *engine;

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void check(toolb_status status)
{
	char text[512] = "";
	if (status == TOOLB_OK)
		return;
	if (engine)
		(void)toolb_engine_error(engine, text, sizeof text, NULL);
	fprintf(stderr, "lateness: %s\n", text[0] ? text : toolb_status_text(status));
	exit(3);
}

static void wait_again(toolb_stream stream, struct wait *wait)
{
	wait->since = now();
	check(toolb_stream_want(stream, WAIT_MS));
}

static void on_accept(void *state, toolb_stream stream)
{
	(void)state;
	struct wait *wait = &waits[accepted++ % MOST_STREAMS];
	check(toolb_stream_set_user(stream, wait));
	wait_again(stream, wait);
}

static void on_timeout(void *state, toolb_stream stream)
{
	(void)state;
	struct wait *wait = toolb_stream_user(stream);
	double moment = now();
	if (sample_count < MOST_SAMPLES)
		samples[sample_count++] = moment - wait->since - WAIT_MS * 1e3;
	if (moment > finish)
		(void)toolb_engine_stop(engine);
	wait_again(stream, wait);
}

static void on_drain(void *state, uint32_t index)
{
	(void)state;
	(void)index;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double at(double share)
{
	return samples[(size_t)(share * (double)(sample_count - 1))];
}

int main(int argc, char **argv)
{
	int seconds = argc > 1 ? atoi(argv[1]) : 3, streams = argc > 2 ? atoi(argv[2]) : 64;
	if (seconds < 1 || streams < 1 || streams > MOST_STREAMS)
		return fprintf(stderr, "usage: lateness SECONDS [STREAMS, at most 1024]\n"), 2;
	toolb_options options = {.struct_size = sizeof options, .loops = 1, .timeout_graceful_shutdown_ms = 1};
	toolb_service service = {.struct_size = sizeof service,
	                         .on_accept = on_accept,
	                         .on_timeout = on_timeout,
	                         .on_drain = on_drain};
	char address[128];
	check(toolb_engine_new(&options, &engine));
	check(toolb_engine_service(engine, "127.0.0.1", 0, &service, NULL));
	finish = now() + seconds * 1e6;
	check(toolb_engine_start(engine));
	check(toolb_engine_address(engine, 0, address, sizeof address, NULL));
	const char *colon = strrchr(address, ':');
	struct sockaddr_in to = {.sin_family = AF_INET,
	                         .sin_port = htons((uint16_t)atoi(colon ? colon + 1 : "0")),
	                         .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	for (int i = 0; i < streams; i++) {
		/* Not all at once: each has a phase of its own. */
		const struct timespec pause = {0, WAIT_MS * 1000 * 1000 / streams};
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to)) {
			perror("lateness: connect");
			return 3;
		}
		nanosleep(&pause, NULL);
	}
	check(toolb_engine_run(engine));
	toolb_engine_free(engine);
	if (sample_count == 0)
		return fprintf(stderr, "lateness: no timeout came\n"), 3;
	qsort(samples, sample_count, sizeof *samples, compare);
	printf("{\"timeouts\": %zu, \"streams\": %d, \"wait_ms\": %d, \"min\": %.0f, \"p50\": %.0f, "
	       "\"p90\": %.0f, \"p99\": %.0f, \"max\": %.0f}\n",
	       sample_count, streams, WAIT_MS, at(0), at(0.5), at(0.9), at(0.99), at(1));
	return 0;
}
