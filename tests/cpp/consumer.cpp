// Consumers by their C++ face, of an engine in the same process and by a path.
#include "client.hpp"

#include <toolb.hpp>

#include <poll.h>

#include <cstdlib>
#include <future>
#include <map>
#include <memory>
#include <stdexcept>
#include <thread>
#include <type_traits>

namespace {

using toolb::Consumer;
using toolb::Event;
using toolb::Request;
using toolb::Response;

static_assert(!std::is_copy_constructible_v<Consumer>);
static_assert(std::is_nothrow_move_constructible_v<Consumer>);
static_assert(std::is_trivially_copyable_v<toolb::Exchange>);

// An engine with a pool that runs on a thread of its own.
class Running {
public:
    explicit Running(const char *bus)
    {
        engine.listen("127.0.0.1", 0).pool(bus);
        EXPECT(engine.start());
        address = engine.address();
        thread_ = std::thread([this] { EXPECT(engine.run()); });
    }
    ~Running() { stop(); }
    void stop()
    {
        engine.stop();
        if (thread_.joinable())
            thread_.join();
    }
    std::string get(const std::string &path) const { return ask(address, "GET", path); }

    toolb::Engine engine;
    std::string address;

private:
    std::thread thread_;
};

void a_handler_serves()
{
    Running running("");
    EXPECT(running.engine.bus().empty());
    auto consumer = running.engine.consumer();
    EXPECT(consumer);
    const auto second = running.engine.consumer();
    EXPECT(second.status().code() == TOOLB_CANNOT_ATTACH);
    EXPECT(second.status().text() != std::string(toolb_status_text(TOOLB_CANNOT_ATTACH)));
    toolb::ConsumerOptions many;
    many.slots = 65536;
    const auto third = running.engine.consumer(many);
    EXPECT(third.status().code() == TOOLB_BAD_ARGUMENT);
    EXPECT(std::string(third.status().text()).find("slots is 65536") != std::string::npos);
    std::thread consuming([&] {
        EXPECT(consumer->run([](const Request &request, Response &response) {
            if (request.path() == "/throw")
                throw std::runtime_error("on purpose");
            response.status(201).write(request.method()).write(" ").write(request.path());
        }));
    });
    EXPECT(ends(running.get("/a%20b"), "\r\n\r\nGET /a b"));
    EXPECT(starts(running.get("/throw"), "HTTP/1.1 500 "));
    EXPECT(starts(running.get("/again"), "HTTP/1.1 201 "));
    running.stop();
    consuming.join();
}

// The same handlers, whoever has routes for them.
template <class Routed>
void add_routes(Routed &routed, std::string greeting)
{
    routed.get("/hello/{name}", [greeting](const Request &request, Response &response) {
        response.write(greeting).write(request.param("name"));
    });
    routed.post("/hello/{name}", [](const Request &, Response &response) { response.status(201); });
    routed.route("*", "/count", [] { return 0; },
                 [](int &count, const Request &, Response &response) {
                     response.write(std::to_string(++count));
                 });
    routed.get("/throw", [](const Request &, Response &) { throw std::runtime_error("on purpose"); });
    routed.get("/fields", [](const Request &request, Response &response) {
        for (const auto [name, value] : request.fields())
            response.write(name).write("=").write(value).write(";");
        response.write(request.peer());
    });
    routed.get("/later", [](const Request &, Response &response) {
        std::thread([token = response.status(202).later()]() mutable {
            EXPECT(token.field("x-late", "yes") && token.answer("later"));
        }).detach();
    });
    routed.get("/dropped", [](const Request &, Response &response) { (void)response.later(); });
}

void check_routes(const std::string &address)
{
    const auto get = [&](const char *path) { return ask(address, "GET", path); };
    EXPECT(ends(get("/hello/a%20b"), "Hello, a b"));
    EXPECT(starts(ask(address, "POST", "/hello/b"), "HTTP/1.1 201 "));
    const std::string not_allowed = ask(address, "DELETE", "/hello/b");
    EXPECT(starts(not_allowed, "HTTP/1.1 405 "));
    EXPECT(not_allowed.find("allow: GET, HEAD, POST\r\n") != std::string::npos);
    EXPECT(starts(get("/none"), "HTTP/1.1 404 "));
    EXPECT(ends(get("/count"), "\r\n\r\n1"));
    EXPECT(ends(get("/count"), "\r\n\r\n2"));
    EXPECT(starts(get("/throw"), "HTTP/1.1 500 "));
    EXPECT(ends(get("/fields"), "ost=t;Connection=close;127.0.0.1") ||
           ends(get("/fields"), "ost=t;connection=close;127.0.0.1"));
    const std::string late = get("/later");
    EXPECT(starts(late, "HTTP/1.1 202 ") && ends(late, "later"));
    EXPECT(late.find("x-late: yes\r\n") != std::string::npos);
    EXPECT(starts(get("/dropped"), "HTTP/1.1 500 "));
}

void handlers_serve_on_both_sides_of_the_bus()
{
    Running running("");
    auto attached = running.engine.consumer();
    EXPECT(attached);
    Consumer consumer = std::move(*attached);
    EXPECT(consumer.run().code() == TOOLB_NULL_ARGUMENT);
    add_routes(consumer, "Hello, ");
    std::thread consuming([&] { EXPECT(consumer.run()); });
    check_routes(running.address);
    running.stop();
    consuming.join();

    toolb::Engine engine;
    engine.listen("127.0.0.1", 0);
    add_routes(engine, "Hello, ");
    EXPECT(engine.start());
    std::thread serving([&] { EXPECT(engine.run()); });
    check_routes(engine.address());
    engine.stop();
    serving.join();
}

void a_mistake_in_a_route_is_kept()
{
    Running running("");
    auto consumer = running.engine.consumer();
    EXPECT(consumer);
    const auto nothing = [](const Request &, Response &) {};
    consumer->get("/user/:id", nothing).get(nullptr, nothing);
    EXPECT(consumer->run(nothing).code() == TOOLB_BAD_ARGUMENT);
    const toolb::Status status = consumer->run();
    EXPECT(std::string(status.text()).find("{id} instead of :id") != std::string::npos);
}

// What no route matches is the other handler's; what was begun is answered although it is to stop.
void a_consumer_that_stops_waits_for_its_tokens()
{
    Running running("");
    auto consumer = running.engine.consumer();
    EXPECT(consumer);
    std::promise<toolb::Token> taken;
    consumer->get("/later", [&](const Request &, Response &response) {
        taken.set_value(response.later());
    });
    std::promise<void> ended;
    std::thread consuming([&] {
        EXPECT(consumer->run([](const Request &, Response &response) { response.write("rest"); }));
        ended.set_value();
    });
    EXPECT(ends(running.get("/none"), "rest"));
    std::string answer;
    std::thread asking([&] { answer = running.get("/later"); });
    toolb::Token token = taken.get_future().get();
    consumer->stop();
    auto end = ended.get_future();
    EXPECT(end.wait_for(std::chrono::milliseconds(0)) == std::future_status::timeout);
    EXPECT(token.write("a part"));
    EXPECT(token.end());
    end.wait();
    asking.join();
    consuming.join();
    EXPECT(starts(answer, "HTTP/1.1 200 ") && answer.find("a part") != std::string::npos);
}

// What was answered goes out as a whole, however large, though its client takes its time.
void a_consumer_that_stops_has_sent_its_answers()
{
    const std::string body(16 * 1024 * 1024, 'x');
    for (const char *path : {"/at-once", "/by-token"}) {
        Running running("");
        auto consumer = running.engine.consumer();
        EXPECT(consumer);
        consumer->get("/at-once", [&](const Request &, Response &response) {
            response.write(body);
            consumer->stop();
        });
        consumer->get("/by-token", [&](const Request &, Response &response) {
            EXPECT(response.later().answer(body));
            consumer->stop();
        });
        std::thread consuming([&] {
            EXPECT(consumer->run());
            const Consumer gone = std::move(*consumer);
        });
        Client client(running.address);
        client.send(std::string("GET ") + path + " HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        const std::string answer = client.receive();
        EXPECT(starts(answer, "HTTP/1.1 200 ") && ends(answer, "\r\n\r\n" + body));
        consuming.join();
    }
}

// Whenever it is told to stop: before it begins, on its way to sleep, and when it sleeps.
void a_consumer_stops_at_any_time()
{
    for (int round = 0; round < 100; ++round) {
        Running running("");
        auto consumer = running.engine.consumer();
        EXPECT(consumer);
        std::thread stopping([&] {
            for (int turn = 0; turn < round; ++turn)
                std::this_thread::yield();
            consumer->stop();
        });
        EXPECT(consumer->run([](const Request &, Response &) {}));
        stopping.join();
    }
}

// Streams are sent back as they come, until their client has ended its side.
void streams_are_served()
{
    toolb::Engine refused;
    EXPECT(refused.stream_pool("127.0.0.1", 0).start().code() == TOOLB_BAD_STATE);
    toolb::Engine engine;
    engine.pool("").stream_pool("127.0.0.1", 0);
    EXPECT(engine.start());
    std::thread serving([&] { EXPECT(engine.run()); });
    toolb::ConsumerOptions options;
    options.streams = 8;
    auto consumer = engine.consumer(options);
    EXPECT(consumer);
    EXPECT(consumer->run([](const Request &, Response &) {}).code() == TOOLB_BAD_STATE);
    std::thread consuming([&] {
        EXPECT(consumer->run_events([](const Event &event) {
            const toolb::Exchange stream = event.exchange();
            std::uint16_t port = 0;
            if (event.kind() == Event::Kind::StreamOpen)
                EXPECT(stream.peer(&port) == "127.0.0.1" && port != 0);
            if (event.kind() != Event::Kind::StreamData)
                return;
            EXPECT(stream.write(event.data()));
            if (event.is_end())
                EXPECT(stream.end() && stream.done());
        }));
    });
    Client first(engine.address()), second(engine.address());
    first.send("one");
    second.send("two");
    EXPECT(second.receive(3) == "two");
    EXPECT(first.receive(3) == "one");
    first.finish();
    second.send("last");
    second.finish();
    EXPECT(second.receive() == "last");
    EXPECT(first.receive().empty());
    engine.stop();
    serving.join();
    consuming.join();
}

// Messages of four bytes are sent back. Who has had one answer and is too slow then hears of it.
void streams_have_their_time()
{
    using namespace std::chrono_literals;
    toolb::Engine engine;
    engine.pool("").stream_pool("127.0.0.1", 0);
    EXPECT(engine.start());
    std::thread serving([&] { EXPECT(engine.run()); });
    toolb::ConsumerOptions options;
    options.streams = 8;
    auto consumer = engine.consumer(options);
    EXPECT(consumer);
    std::thread consuming([&] {
        EXPECT(consumer->run_events([&](const Event &event) {
            const toolb::Exchange stream = event.exchange();
            switch (event.kind()) {
            case Event::Kind::StreamOpen:
                EXPECT(stream.want_bytes(100000).code() == TOOLB_BAD_ARGUMENT);
                EXPECT(stream.want());
                EXPECT(stream.want_bytes(4, toolb::never));
                break;
            case Event::Kind::StreamData:
                EXPECT(event.data().size() == (event.is_end() ? 0 : 4));
                EXPECT(stream.write(event.data()));
                if (event.is_end())
                    EXPECT(stream.end() && stream.done());
                else
                    EXPECT(stream.want_bytes(4, 20ms));
                break;
            case Event::Kind::StreamTimeout:
                EXPECT(stream.write("too slow") && stream.end() && stream.done());
                break;
            default:
                break;
            }
        }));
    });
    {
        Client first(engine.address()), second(engine.address());
        first.send("ab");
        first.send("cd");
        EXPECT(first.receive(4) == "abcd");
        EXPECT(first.receive() == "too slow");
        second.finish();
        EXPECT(second.receive().empty());
    }
    engine.stop();
    serving.join();
    consuming.join();
}

// Collects bodies that come in pieces and sends them back in pieces.
class Reverse {
public:
    Reverse()
    {
        EXPECT(file_ && std::fputs("0123456789", file_.get()) >= 0 && std::fflush(file_.get()) == 0);
    }

    void operator()(const Event &event)
    {
        const toolb::Exchange exchange = event.exchange();
        switch (event.kind()) {
        case Event::Kind::Request:
            EXPECT(exchange.id() != 0);
            EXPECT(event.user_data() == nullptr);
            EXPECT(exchange.user_data(this));
            EXPECT(exchange.pause() && exchange.resume());
            if (event.request().path() == "/throw")
                throw std::runtime_error("on purpose");
            if (event.request().path() == "/file") {
                const toolb::Status refused = exchange.file(-1);
                EXPECT(refused.code() == TOOLB_BAD_ARGUMENT);
                EXPECT(std::string(refused.text()).find("below 0") != std::string::npos);
                EXPECT(exchange.file(fileno(file_.get()), 2, 3));
                return;
            }
            bodies_[exchange.id()].append(event.data());
            break;
        case Event::Kind::Body:
            EXPECT(event.user_data() == this);
            bodies_[exchange.id()].append(event.data());
            break;
        case Event::Kind::Writable:
            send(exchange);
            return;
        case Event::Kind::Cancelled:
            bodies_.erase(exchange.id());
            EXPECT(exchange.done());
            return;
        default:
            return;
        }
        if (event.is_end()) {
            std::string &body = bodies_[exchange.id()];
            body = std::string(body.rbegin(), body.rend());
            EXPECT(exchange.status(202) && exchange.field("x-way", "back"));
            send(exchange);
        }
    }

private:
    void send(toolb::Exchange exchange)
    {
        std::string &body = bodies_[exchange.id()];
        while (!body.empty()) {
            const std::string part = body.substr(0, 30000);
            const toolb::Status status = exchange.write(part);
            if (!status) {
                EXPECT(status.code() == TOOLB_FULL);
                return;
            }
            body.erase(0, part.size());
        }
        EXPECT(exchange.end());
        EXPECT(exchange.write("x").code() == TOOLB_BAD_STATE);
        EXPECT(exchange.done());
        EXPECT(exchange.done().code() == TOOLB_NOT_FOUND);
        bodies_.erase(exchange.id());
    }

    struct Close {
        void operator()(std::FILE *file) const noexcept { std::fclose(file); }
    };

    std::map<std::uint64_t, std::string> bodies_;
    std::unique_ptr<std::FILE, Close> file_{std::tmpfile()};
};

void events_are_taken()
{
    Running running("");
    std::thread consuming([&] {
        auto consumer = running.engine.consumer();
        EXPECT(consumer);
        EXPECT(consumer->run_events(Reverse()));
    });
    EXPECT(starts(running.get("/throw"), "HTTP/1.1 500 "));
    EXPECT(ends(running.get("/file"), "\r\n\r\n234"));
    std::string body(1 << 20, 'x');
    body.replace(0, 5, "first");
    const std::string answer = [&] {
        Client client(running.address);
        client.send("POST / HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: " +
                    std::to_string(body.size()) + "\r\n\r\n");
        client.send(body);
        return client.receive();
    }();
    EXPECT(starts(answer, "HTTP/1.1 202 "));
    EXPECT(answer.find("x-way: back\r\n") != std::string::npos);
    EXPECT(ends(answer, "tsrif\r\n0\r\n\r\n"));
    running.stop();
    consuming.join();
}

void a_loop_of_ones_own_waits_for_a_descriptor()
{
    char folder[] = "/tmp/toolb-XXXXXX"; // a short name, as paths of sockets have to be
    EXPECT(mkdtemp(folder) != nullptr);
    const std::string bus = std::string(folder) + "/bus";
    {
        Running running(bus.c_str());
        EXPECT(running.engine.bus() == bus);
        toolb::ConsumerOptions options;
        options.name = "own";
        auto attached = Consumer::attach(bus.c_str(), options);
        EXPECT(attached);
        Consumer consumer(std::move(*attached));
        EXPECT(attached->poll().code() == TOOLB_NULL_ARGUMENT);
        EXPECT(consumer.ready());
        const auto descriptor = [&] {
            auto fd = consumer.fd();
            EXPECT(fd);
            return *fd;
        }();
        std::string answer;
        std::thread asking([&] { answer = running.get("/own"); });
        for (bool answered = false; !answered;) {
            auto may_block = consumer.arm();
            EXPECT(may_block);
            pollfd waiting = {descriptor, POLLIN, 0};
            if (*may_block)
                EXPECT(poll(&waiting, 1, -1) == 1);
            EXPECT(consumer.poll());
            for (Event event = consumer.next(); event.kind() != Event::Kind::None;
                 event = consumer.next()) {
                if (event.kind() != Event::Kind::Request)
                    continue;
                EXPECT(event.exchange().answer("by a loop of its own"));
                answered = true;
            }
        }
        EXPECT(consumer.flush());
        asking.join();
        EXPECT(ends(answer, "by a loop of its own"));
        EXPECT(consumer.wait(std::chrono::milliseconds(0)).code() == TOOLB_TIMEOUT);

        EXPECT(consumer.leave());
        std::thread stopping([&] { consumer.stop(); });
        EXPECT(consumer.run([](const Request &, Response &) {}));
        stopping.join();
    }
    EXPECT(::rmdir(folder) == 0);
    const auto none = Consumer::attach(bus.c_str());
    EXPECT(none.status().code() == TOOLB_CANNOT_ATTACH);
    EXPECT(std::string(none.status().text()).find(folder) != std::string::npos);
}

} // namespace

int main()
{
    a_handler_serves();
    handlers_serve_on_both_sides_of_the_bus();
    a_mistake_in_a_route_is_kept();
    a_consumer_that_stops_waits_for_its_tokens();
    a_consumer_that_stops_has_sent_its_answers();
    a_consumer_stops_at_any_time();
    streams_are_served();
    streams_have_their_time();
    events_are_taken();
    a_loop_of_ones_own_waits_for_a_descriptor();
}
