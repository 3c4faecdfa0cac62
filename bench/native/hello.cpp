// "Hello, World!" in C++, inline in the engine or as a consumer, by the same handler:
//
//     hello_cpp PORT          serves on 127.0.0.1 by one loop; 0 picks a free port
//     hello_cpp bus PATH      answers for the engine at that bus, as soon as it is there
#include <toolb.hpp>

#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace {

void hello(const toolb::Request &, toolb::Response &response)
{
    response.field("content-type", "text/plain").write("Hello, World!");
}

int serve(int port)
{
    toolb::Options options;
    options.loops = 1;
    toolb::Engine engine(options);
    engine.listen("127.0.0.1", static_cast<std::uint16_t>(port)).get("/", hello);
    return engine.serve();
}

int consume(const char *bus)
{
    // The engine is started at the same time.
    toolb::ConsumerOptions options;
    options.attach_patience_ms = 10000;
    auto consumer = toolb::Consumer::attach(bus, options);
    const toolb::Status ended = consumer ? consumer->run(hello) : consumer.status();
    if (ended || ended.code() == TOOLB_HANG_UP)
        return 0;
    std::fprintf(stderr, "hello_cpp: %s\n", ended.text());
    return 3;
}

} // namespace

int main(int argc, char **argv)
{
    if (argc == 3 && std::string_view(argv[1]) == "bus")
        return consume(argv[2]);
    if (argc == 2)
        return serve(std::atoi(argv[1]));
    std::fputs("usage: hello_cpp PORT, or hello_cpp bus PATH\n", stderr);
    return 2;
}
