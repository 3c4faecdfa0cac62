// Sends back whatever comes, for as long as the client likes: ./echo [PORT]
//
//     telnet localhost 8080
#include <cstdlib>

#include <toolb.hpp>

namespace {

class Echo final : public toolb::Service {
public:
    void on_receive(toolb::Stream stream) override
    {
        // What finds no room stays unread; then the client has to wait, and memory stays small.
        for (std::string_view unread = stream.peek(); !unread.empty(); unread = stream.peek()) {
            const std::string_view part = unread.substr(0, 16384);
            if (!stream.send(part))
                return;
            (void)stream.consume(part.size());
        }
        if (stream.ended())
            (void)stream.close();
    }

    void on_writable(toolb::Stream stream) override { on_receive(stream); }
};

} // namespace

int main(int argc, char **argv)
{
    toolb::ServiceOptions options;
    options.default_timeout = toolb::never;
    options.half_open = true; // a client that has sent its last still gets the rest
    toolb::Engine engine;
    engine.service("127.0.0.1", static_cast<std::uint16_t>(argc > 1 ? std::atoi(argv[1]) : 8080),
                   [] { return Echo(); }, options);
    return engine.serve();
}
