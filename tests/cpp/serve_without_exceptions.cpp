// Serves in a unit that is compiled without exceptions.
#include <toolb.hpp>

int serve_without_exceptions(std::uint16_t port);

int serve_without_exceptions(std::uint16_t port)
{
    toolb::Engine engine;
    engine.listen("127.0.0.1", port);
    return engine.serve();
}
