/*
 * An access log whose reader has gone. It is a pipe of this program's, to which SIGPIPE would be fatal.
 */
#include <unistd.h>

#include "dial.h"

int main(void)
{
    toolb_engine *engine = NULL;
    toolb_options options = {.struct_size = sizeof options, .loops = 1, .access_log = 1};
    char address[128];
    int ends[2];

    REQUIRE(pipe(ends) == 0 && dup2(ends[1], STDOUT_FILENO) == STDOUT_FILENO);
    REQUIRE(close(ends[0]) == 0 && close(ends[1]) == 0);
    EXPECT(toolb_engine_new(&options, &engine), TOOLB_OK);
    EXPECT(toolb_engine_listen(engine, "127.0.0.1", 0), TOOLB_OK);
    EXPECT(toolb_engine_start(engine), TOOLB_OK);
    EXPECT(toolb_engine_address(engine, 0, address, sizeof address, NULL), TOOLB_OK);
    for (int count = 0; count < 3; count++) {
        static const char request[] = "GET / HTTP/1.0\r\n\r\n";
        char answer[512];
        int fd = dial(strrchr(address, ':') + 1);
        REQUIRE(send(fd, request, sizeof request - 1, MSG_NOSIGNAL) == sizeof request - 1);
        REQUIRE(recv(fd, answer, sizeof answer, 0) > 0 && strncmp(answer, "HTTP/1.1 404", 12) == 0);
        close(fd);
    }
    EXPECT(toolb_engine_stop(engine), TOOLB_OK);
    /* Waits for what is to be logged. */
    toolb_engine_free(engine);
    return 0;
}
