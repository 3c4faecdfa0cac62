// Any bytes in, a greeting out, and the end: ./greeter [PORT]
//
//     nc localhost 8080
#include <cstdlib>

#include <toolb.hpp>

namespace {

struct Greeter final : toolb::Service {
    void on_receive(toolb::Stream stream) override
    {
        (void)stream.take();
        (void)stream.send("<b>Hello from toolB!</b>\r\n");
        (void)stream.close();
    }
};

} // namespace

int main(int argc, char **argv)
{
    toolb::Engine engine;
    engine.service("127.0.0.1", static_cast<std::uint16_t>(argc > 1 ? std::atoi(argv[1]) : 8080),
                   [] { return Greeter(); });
    return engine.serve();
}
