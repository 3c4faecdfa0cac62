// A second translation unit with the same header: nothing in it may be defined twice.
#include <toolb.hpp>
#include <toolb.hpp>

std::string other_unit()
{
    toolb::Engine engine;
    engine.get("/", [](const toolb::Request &, toolb::Response &response) { response.write("x"); });
    return engine.status() ? "the other unit" : engine.status().text();
}

toolb::Status other_consumer()
{
    auto consumer = toolb::Consumer::attach("/none");
    if (!consumer)
        return consumer.status();
    return consumer->run_events([](const toolb::Event &event) { (void)event.exchange().answer("x"); });
}

struct OtherService final : toolb::Service {
    void on_receive(toolb::Stream stream) override { (void)stream.send(stream.take()); }
};

toolb::Status other_parts(toolb::Engine &engine)
{
    engine.service("127.0.0.1", 0, [] { return OtherService(); });
    const auto own = engine.pool("").consumer();
    if (!own)
        return own.status();
    engine.route(
        "GET", "/later", [] { return 0; },
        [](int &, const toolb::Request &, toolb::Response &response) {
            const auto token = std::make_shared<toolb::Token>(response.later());
            (void)token->on_cancel([token] {});
            (void)token->on_writable([] {});
            (void)toolb::after(std::chrono::milliseconds(1), [token] { (void)token->answer("x"); });
            (void)toolb::watch(0, TOOLB_WATCH_READ, [](std::uint32_t) { return false; });
        });
    const auto timer = toolb::Timer::start(std::chrono::milliseconds(1), [] {});
    const auto watch = toolb::Watch::start(0, TOOLB_WATCH_READ, [](std::uint32_t) {});
    return timer ? watch.status() : timer.status();
}
