/*
 * The physical limit: what one thread costs that reads, looks for the end of a
 * head and sends a canned answer. Level-triggered epoll, keep-alive,
 * pipelining, one send per burst. It understands nothing of HTTP, but for
 * "Connection: close" in what a connection brings first.
 *
 * Usage: epoll PORT     (0 lets the kernel choose; the first line says which)
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define ANSWER                       \
	"HTTP/1.1 200 OK\r\n"            \
	"Content-Type: text/plain\r\n"   \
	"Content-Length: 13\r\n"         \
	"\r\n"                           \
	"Hello, World!"
#define LAST_ANSWER                  \
	"HTTP/1.1 200 OK\r\n"            \
	"Content-Type: text/plain\r\n"   \
	"Content-Length: 13\r\n"         \
	"Connection: close\r\n"          \
	"\r\n"                           \
	"Hello, World!"
enum { ANSWER_LEN = sizeof ANSWER - 1, REPEAT = 512, IN_SIZE = 8192, EVENTS = 256 };

struct conn {
	int fd;
	int waiting_out;
	int is_new; /* nothing has come yet */
	size_t have; /* bytes of an unfinished head */
	size_t owed; /* bytes of answers not sent yet */
	char in[IN_SIZE];
};

static char canned[ANSWER_LEN * REPEAT];
static int ep;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void drop(struct conn *c)
{
	close(c->fd);
	free(c);
}

/* Sends what is owed; the answers are periodic, so a count is all the state. 0: gone. */
static int flush(struct conn *c)
{
	while (c->owed) {
		size_t at = (ANSWER_LEN - c->owed % ANSWER_LEN) % ANSWER_LEN;
		size_t n = c->owed < sizeof canned - at ? c->owed : sizeof canned - at;
		ssize_t sent = send(c->fd, canned + at, n, MSG_NOSIGNAL);
		if (sent < 0) {
			if (errno == EAGAIN)
				break;
			return 0;
		}
		c->owed -= (size_t)sent;
	}
	if (c->waiting_out != (c->owed != 0)) {
		c->waiting_out = c->owed != 0;
		struct epoll_event e = {c->waiting_out ? EPOLLOUT : EPOLLIN, {.ptr = c}};
		if (epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e))
			die("epoll_ctl");
	}
	return 1;
}

static int readable(struct conn *c)
{
	ssize_t got = recv(c->fd, c->in + c->have, sizeof c->in - c->have, 0);
	if (got <= 0)
		return got < 0 && errno == EAGAIN;
	size_t len = c->have + (size_t)got;
	if (c->is_new && memmem(c->in, len, "\r\nConnection: close\r\n", 21)) {
		/* An empty socket takes it whole; then the connection is over. */
		(void)!send(c->fd, LAST_ANSWER, sizeof LAST_ANSWER - 1, MSG_NOSIGNAL);
		return 0;
	}
	c->is_new = 0;
	char *at = c->in, *stop;
	while ((stop = memmem(at, (size_t)(c->in + len - at), "\r\n\r\n", 4))) {
		c->owed += ANSWER_LEN;
		at = stop + 4;
	}
	c->have = (size_t)(c->in + len - at);
	if (c->have == sizeof c->in)
		return 0;
	if (c->have && at != c->in)
		memmove(c->in, at, c->have);
	return flush(c);
}

int main(int argc, char **argv)
{
	for (size_t i = 0; i < REPEAT; i++)
		memcpy(canned + i * ANSWER_LEN, ANSWER, ANSWER_LEN);
	struct sockaddr_in a = {.sin_family = AF_INET,
	                        .sin_port = htons((uint16_t)(argc > 1 ? atoi(argv[1]) : 0)),
	                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t a_len = sizeof a;
	int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) ||
	    bind(listener, (struct sockaddr *)&a, sizeof a) || listen(listener, 4096) ||
	    getsockname(listener, (struct sockaddr *)&a, &a_len))
		die("listen");
	if ((ep = epoll_create1(EPOLL_CLOEXEC)) < 0)
		die("epoll_create1");
	struct epoll_event e = {EPOLLIN, {.ptr = NULL}}, events[EVENTS];
	if (epoll_ctl(ep, EPOLL_CTL_ADD, listener, &e))
		die("epoll_ctl");
	printf("listening on http://127.0.0.1:%d\n", ntohs(a.sin_port));
	fflush(stdout);
	for (;;) {
		int n = epoll_wait(ep, events, EVENTS, -1);
		if (n < 0 && errno != EINTR)
			die("epoll_wait");
		for (int i = 0; i < n; i++) {
			struct conn *c = events[i].data.ptr;
			if (c) {
				if (!(c->waiting_out ? flush(c) : readable(c)))
					drop(c);
				continue;
			}
			int fd;
			while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
				setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
				if (!(c = malloc(sizeof *c)))
					die("malloc");
				c->fd = fd, c->waiting_out = 0, c->is_new = 1, c->have = c->owed = 0;
				e = (struct epoll_event){EPOLLIN, {.ptr = c}};
				if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e))
					die("epoll_ctl");
			}
		}
	}
}
