// Services of raw connections by their C++ face.
#include "client.hpp"

#include <toolb.hpp>

#include <atomic>
#include <map>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

namespace {

using toolb::Reason;
using toolb::Service;
using toolb::Stream;
using std::chrono::milliseconds;

struct Seen {
    void add(const std::string &what)
    {
        const std::lock_guard held(lock);
        all.push_back(what);
    }
    bool has(const std::string &what)
    {
        const std::lock_guard held(lock);
        return std::find(all.begin(), all.end(), what) != all.end();
    }
    void wait_for(const std::string &what)
    {
        while (!has(what))
            std::this_thread::yield();
    }

    std::mutex lock;
    std::vector<std::string> all;
};

class Running {
public:
    explicit Running(toolb::Engine made) : engine_(std::move(made))
    {
        EXPECT(engine_.start());
        thread_ = std::thread([this] { EXPECT(engine_.run()); });
    }
    ~Running()
    {
        engine_.stop();
        thread_.join();
    }
    std::string address(std::size_t index = 0) const { return engine_.address(index); }

private:
    toolb::Engine engine_;
    std::thread thread_;
};

std::string number(Reason reason) { return std::to_string(static_cast<int>(reason)); }

// A language of lines, with the ways to end.
class Lines final : public Service {
public:
    explicit Lines(Seen &seen) : seen_(seen) { seen_.add("made"); }
    Lines(const Lines &) = delete;
    ~Lines() override { seen_.add("destroyed"); }

    void on_accept(Stream stream) override
    {
        EXPECT(stream.user() == nullptr);
        EXPECT(stream.user(this));
        EXPECT(starts(stream.peer(), "127.0.0.1:"));
        EXPECT(stream.send("welcome\n"));
        EXPECT(stream.unsent() == 8);
    }

    void on_receive(Stream stream) override
    {
        EXPECT(stream.user() == this);
        const std::string_view unread = stream.peek();
        const std::size_t end = unread.find('\n');
        if (end == std::string_view::npos)
            return;
        const std::string line(unread.substr(0, end));
        EXPECT(stream.consume(end + 1));
        EXPECT(stream.consume(1 << 20).code() == TOOLB_BAD_ARGUMENT);
        if (line == "close")
            EXPECT(stream.close() && stream.close());
        else if (line == "abort")
            EXPECT(stream.abort());
        else if (line == "throw")
            throw std::runtime_error("on purpose");
        else if (line == "idle")
            EXPECT(stream.want(milliseconds(1)));
        else if (line == "late")
            EXPECT(stream.want(milliseconds(-1)));
        else if (line == "frame") {
            framed_ = true;
            EXPECT(stream.send("go on\n"));
            EXPECT(stream.want_bytes(4, toolb::never));
        } else if (framed_) {
            EXPECT(line.size() >= 3);
            EXPECT(stream.send("frame of " + std::to_string(line.size()) + "\n"));
        } else {
            EXPECT(stream.send(line + "!\n"));
            EXPECT(stream.want());
        }
    }

    void on_timeout(Stream stream) override
    {
        seen_.add("timeout");
        EXPECT(stream.send("too late\n") && stream.close());
    }

    void on_close(Stream stream, Reason reason) override
    {
        seen_.add("close " + number(reason));
        closed_.push_back(stream);
        EXPECT(stream.user() == this);
    }

private:
    Seen &seen_;
    bool framed_ = false;
    std::vector<Stream> closed_;
};

void lines_are_answered_and_ends_are_told()
{
    Seen seen;
    {
        toolb::Engine engine;
        engine.service("127.0.0.1", 0, [&] { return Lines(seen); });
        const Running running(std::move(engine));
        EXPECT(starts(running.address(), "tcp://127.0.0.1:"));
        {
            Client client(running.address());
            client.send("one\ntwo\n");
            EXPECT(client.receive(8 + 10) == "welcome\none!\ntwo!\n");
            client.send("close\nnever\n");
            EXPECT(client.receive().empty());
            seen.wait_for("close " + number(Reason::Closed));
        }
        {
            Client client(running.address());
            client.send("throw\n");
            (void)client.receive();
            seen.wait_for("close " + number(Reason::Aborted));
        }
        {
            Client client(running.address());
            client.send("idle\n");
            EXPECT(client.receive() == "welcome\ntoo late\n");
            EXPECT(seen.has("timeout"));
        }
        {
            Client client(running.address());
            client.send("frame\n");
            EXPECT(client.receive(14) == "welcome\ngo on\n");
            client.send("a");
            client.send("b");
            client.send("cd\n");
            EXPECT(client.receive(11) == "frame of 4\n");
        }
        seen.wait_for("close " + number(Reason::PeerClosed));
        EXPECT(!seen.has("destroyed"));
    }
    EXPECT(seen.has("made") && seen.has("destroyed"));
    EXPECT(Stream(7).send("x").code() == TOOLB_WRONG_LOOP);
    EXPECT(Stream::connect("127.0.0.1", 1).status().code() == TOOLB_WRONG_LOOP);
    EXPECT(Stream(7).peek().empty() && Stream(7).peer().empty() && !Stream(7).ended());
}

// What is left of a deadline that has passed is a time to wait, and not the service's default.
void a_passed_deadline_is_short()
{
    Seen seen;
    toolb::ServiceOptions options;
    options.default_timeout = toolb::never;
    toolb::Engine engine;
    engine.service("127.0.0.1", 0, [&] { return Lines(seen); }, options);
    const Running running(std::move(engine));
    Client client(running.address());
    client.send("late\n");
    EXPECT(client.receive() == "welcome\ntoo late\n");
}

// Passes everything on to another server, both ways, and reconnects nothing.
class Proxy final : public Service {
public:
    explicit Proxy(const std::string &target)
        : port_(static_cast<std::uint16_t>(std::atoi(target.c_str() + target.rfind(':') + 1)))
    {
    }

    void on_accept(Stream client) override
    {
        const toolb::Status refused = Stream::connect("not-numeric", port_).status();
        EXPECT(refused.code() == TOOLB_BAD_ARGUMENT);
        EXPECT(std::string(refused.text()).find("\"not-numeric\"") != std::string::npos);
        auto server = Stream::connect("127.0.0.1", port_, milliseconds(20000));
        EXPECT(server);
        pairs_[client.id()] = *server;
        pairs_[server->id()] = client;
    }
    void on_connect(Stream server) override { EXPECT(pairs_.count(server.id()) == 1); }
    void on_connect_fail(Stream server, int error) override
    {
        EXPECT(error != 0);
        on_close(server, Reason::Reset);
    }
    void on_receive(Stream from) override
    {
        const auto to = pairs_.find(from.id());
        if (to != pairs_.end())
            (void)to->second.send(from.take());
    }
    void on_close(Stream stream, Reason) override
    {
        const auto other = pairs_.find(stream.id());
        if (other == pairs_.end())
            return;
        (void)other->second.close();
        pairs_.erase(other->second.id());
        pairs_.erase(stream.id());
    }

private:
    std::uint16_t port_;
    std::map<toolb_stream, Stream> pairs_;
};

void connections_are_made()
{
    Seen seen;
    toolb::Engine engine;
    engine.service("127.0.0.1", 0, [&] { return Lines(seen); });
    const Running target(std::move(engine));

    toolb::Engine passing;
    passing.service("127.0.0.1", 0, [address = target.address()] { return Proxy(address); });
    // A port that was free a moment ago: nobody listens there.
    passing.service("127.0.0.1", 0, [] { return Proxy("tcp://127.0.0.1:1"); });
    const Running proxy(std::move(passing));
    Client client(proxy.address());
    client.send("through\n");
    EXPECT(client.receive(8 + 9) == "welcome\nthrough!\n");
    client.send("close\n");
    EXPECT(client.receive().empty());
    Client nowhere(proxy.address(1));
    EXPECT(nowhere.receive().empty());
}

// Only what it overrides is told to the library: an idle stream is closed by itself.
struct Silent final : Service {
    explicit Silent(Seen &given) : seen(&given) {}
    void on_close(Stream, Reason reason) override { seen->add("close " + number(reason)); }
    void on_drain() override { seen->add("drain"); }
    Seen *seen;
};

struct Broken final : Service {};

void defaults_hold()
{
    Seen seen;
    toolb::ServiceOptions options;
    options.default_timeout = milliseconds(1);
    {
        toolb::Engine engine;
        engine.service("127.0.0.1", 0, [&] { return Silent(seen); }, options);
        engine.service("127.0.0.1", 0, []() -> Broken { throw std::runtime_error("on purpose"); });
        const Running running(std::move(engine));
        Client idle(running.address());
        EXPECT(idle.receive().empty());
        seen.wait_for("close " + number(Reason::Timeout));
        Client refused(running.address(1));
        EXPECT(refused.receive().empty());
    }
    EXPECT(seen.has("drain"));
    toolb::Engine engine;
    EXPECT(engine.service_unix(nullptr, 0, [] { return Broken(); }).status().code() ==
           TOOLB_NULL_ARGUMENT);
}

} // namespace

int main()
{
    lines_are_answered_and_ends_are_told();
    a_passed_deadline_is_short();
    connections_are_made();
    defaults_hold();
}
