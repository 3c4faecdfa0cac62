// Engines and consumers that are destroyed, or assigned over, in a callback of their own.
#include "client.hpp"

#include <toolb.hpp>

#include <atomic>
#include <memory>
#include <string>
#include <thread>

namespace {

using toolb::Request;
using toolb::Response;

std::atomic<int> handlers{0};

// Stands for what a handler captures, and counts those that live.
class Captured {
public:
    Captured() : text_("a text that is too long to stand in its string") { ++handlers; }
    Captured(const Captured &other) : text_(other.text_) { ++handlers; }
    ~Captured()
    {
        text_ = "gone";
        --handlers;
    }

    const char *text() const { return text_.c_str(); }

private:
    std::string text_;
};

const std::string text = Captured().text();

using LetGo = void (*)(std::unique_ptr<toolb::Engine> &);

void destroy(std::unique_ptr<toolb::Engine> &engine) { engine.reset(); }
void assign_over(std::unique_ptr<toolb::Engine> &engine) { *engine = toolb::Engine(); }

class Greeter final : public toolb::Service {
public:
    explicit Greeter(std::unique_ptr<toolb::Engine> &engine, LetGo let_go)
        : engine_(engine), let_go_(let_go)
    {
    }
    void on_receive(toolb::Stream stream) override
    {
        let_go_(engine_);
        EXPECT(stream.send(captured_.text()));
        EXPECT(stream.close());
    }

private:
    std::unique_ptr<toolb::Engine> &engine_;
    LetGo let_go_;
    Captured captured_;
};

// An engine with a request that began before it is let go of, and is answered after.
template <class Ask>
void an_engine_is_let_go_of(LetGo let_go, Ask ask_for_the_end)
{
    auto engine = std::make_unique<toolb::Engine>();
    engine->listen("127.0.0.1", 0);
    engine->get("/end", [&engine, let_go, captured = Captured()](const Request &, Response &response) {
        let_go(engine);
        response.write(captured.text());
    });
    engine->post("/late", [captured = Captured()](const Request &, Response &response) {
        EXPECT(handlers.load() > 0);
        response.write(captured.text());
    });
    engine->service("127.0.0.1", 0, [&engine, let_go, captured = Captured()] {
        return Greeter(engine, let_go);
    });
    EXPECT(engine->start());
    const std::string http = engine->address(), raw = engine->address(1);
    Client late(http);
    late.send("POST /late HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: 1\r\n"
              "Expect: 100-continue\r\n\r\n");
    const std::string go_on = "HTTP/1.1 100 Continue\r\n\r\n";
    EXPECT(late.receive(go_on.size()) == go_on);
    EXPECT(ends(ask_for_the_end(http, raw), text));
    late.send("x");
    EXPECT(ends(late.receive(), text));
}

void engines_are_let_go_of()
{
    for (const LetGo let_go : {destroy, assign_over}) {
        an_engine_is_let_go_of(let_go, [](const std::string &http, const std::string &) {
            return ask(http, "GET", "/end");
        });
        an_engine_is_let_go_of(let_go, [](const std::string &, const std::string &raw) {
            Client client(raw);
            client.send("x");
            return client.receive();
        });
    }
}

// One that was never started goes at once, and so does all it has.
void an_engine_of_no_loop_goes_at_once()
{
    toolb::Engine engine;
    engine.listen("127.0.0.1", 0).get("/", [](const Request &, Response &response) {
        const int before = handlers.load();
        {
            toolb::Engine other;
            other.get("/", [captured = Captured()](const Request &, Response &) {});
            EXPECT(handlers.load() == before + 1);
        }
        EXPECT(handlers.load() == before);
        response.write("gone");
    });
    EXPECT(engine.start());
    EXPECT(ends(ask(engine.address(), "GET", "/"), "gone"));
}

// It goes, with all it has, as the call that serves by it returns.
template <class Serve>
void a_consumer_is_let_go_of(Serve serve)
{
    toolb::Engine engine;
    engine.listen("127.0.0.1", 0).pool("");
    EXPECT(engine.start());
    auto attached = engine.consumer();
    EXPECT(attached);
    const int before = handlers.load();
    std::thread consuming([&] {
        auto consumer = std::make_unique<toolb::Consumer>(*std::move(attached));
        EXPECT(serve(consumer));
        EXPECT(consumer == nullptr);
        EXPECT(handlers.load() == before);
    });
    EXPECT(ends(ask(engine.address(), "GET", "/"), text));
    consuming.join();
}

void consumers_are_let_go_of()
{
    using Consumer = std::unique_ptr<toolb::Consumer>;
    a_consumer_is_let_go_of([](Consumer &consumer) {
        consumer->get("/", [&consumer, captured = Captured()](const Request &, Response &response) {
            consumer.reset();
            response.write(captured.text());
        });
        return consumer->run();
    });
    a_consumer_is_let_go_of([](Consumer &consumer) {
        return consumer->run([&consumer](const Request &, Response &response) {
            consumer.reset();
            response.write(text);
        });
    });
    a_consumer_is_let_go_of([](Consumer &consumer) {
        return consumer->run_events([&consumer](const toolb::Event &event) {
            if (event.kind() != toolb::Event::Kind::Request)
                return;
            EXPECT(event.exchange().answer(text));
            consumer.reset();
        });
    });
}

} // namespace

int main()
{
    engines_are_let_go_of();
    an_engine_of_no_loop_goes_at_once();
    consumers_are_let_go_of();
}
