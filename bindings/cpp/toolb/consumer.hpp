// A consumer: a process that answers what an engine hands it over shared memory. Part of toolb.hpp.
#ifndef TOOLB_CONSUMER_HPP
#define TOOLB_CONSUMER_HPP

#include "http.hpp"
#include "stream.hpp"

#include <chrono>
#include <memory>

namespace toolb {
inline namespace TOOLB_MODE {

/// What a consumer says about itself, as in toolb.h; what is left at 0 and null has its default.
struct ConsumerOptions : toolb_consumer_options {
    ConsumerOptions() noexcept : toolb_consumer_options{}
    {
        struct_size = sizeof(toolb_consumer_options);
    }
};

/// A request and its response, or a stream, by its number. Copies name the same exchange; it is the
/// consumer that holds it, until answer, done or abort, and a call after that answers TOOLB_NOT_FOUND.
class Exchange {
public:
    Exchange(toolb_consumer *consumer, std::uint64_t id) noexcept : consumer_(consumer), id_(id) {}

    /// Never 0; a key for programs that keep something for each exchange.
    std::uint64_t id() const noexcept { return id_; }

    /// Sets the status code of the response; 200 when not called.
    Status status(std::uint16_t code) const
    {
        return detail::explained(toolb_exchange_status(consumer_, id_, code));
    }

    /// Adds a field to the response.
    Status field(const char *name, const char *value) const
    {
        return detail::explained(toolb_exchange_field(consumer_, id_, name, value));
    }

    /// Sends the whole response, and lets go of the exchange.
    Status answer(std::string_view body) const
    {
        return detail::explained(toolb_exchange_answer(consumer_, id_, body.data(), body.size()));
    }

    /// Answers with a part of an open file, which stays yours and may be closed afterwards; lets go of
    /// the exchange if it worked.
    Status file(int descriptor, std::uint64_t offset = 0,
                std::uint64_t length = TOOLB_REST) const
    {
        return detail::explained(toolb_exchange_file(consumer_, id_, descriptor, offset, length));
    }

    /// Sends bytes of the body or of the stream, all or none: TOOLB_FULL until Event::Kind::Writable.
    Status write(std::string_view bytes) const
    {
        return detail::explained(toolb_exchange_write(consumer_, id_, bytes.data(), bytes.size()));
    }

    /// Ends the response, or the stream when all is sent; the exchange goes on until done().
    Status end() const { return detail::explained(toolb_exchange_end(consumer_, id_)); }

    /// Lets go of an exchange that was ended or whose client has gone.
    Status done() const { return detail::explained(toolb_exchange_done(consumer_, id_)); }

    /// Gives it up: 500, or a response that breaks off; a stream is reset.
    Status abort() const { return detail::explained(toolb_exchange_abort(consumer_, id_)); }

    /// Asks for no more of the request's body or of the stream until resume().
    Status pause() const { return detail::explained(toolb_exchange_pause(consumer_, id_)); }
    Status resume() const { return detail::explained(toolb_exchange_resume(consumer_, id_)); }

    /// On a stream: asks for one StreamData as soon as anything comes, or for StreamTimeout.
    Status want(std::chrono::milliseconds at_most = by_default) const
    {
        return detail::explained(toolb_exchange_want(consumer_, id_, detail::idle(at_most)));
    }

    /// The same when at least that many bytes are there, all in one, or no more come.
    Status want_bytes(std::size_t least,
                      std::chrono::milliseconds at_most = by_default) const
    {
        return detail::explained(
            toolb_exchange_want_bytes(consumer_, id_, least, detail::idle(at_most)));
    }

    /// The client's address, and its port if it is asked for; empty for clients of a Unix socket.
    std::string peer(std::uint16_t *port = nullptr) const
    {
        return detail::fetch([&](char *buffer, std::size_t capacity, std::size_t *needed) {
            return toolb_exchange_peer(consumer_, id_, buffer, capacity, needed, port);
        });
    }

    /// Keeps a pointer; every further event of this exchange carries it.
    Status user_data(void *pointer) const
    {
        return detail::explained(toolb_exchange_set_user_data(consumer_, id_, pointer));
    }

private:
    toolb_consumer *consumer_;
    std::uint64_t id_;
};

/// What came over the bus.
class Event {
public:
    enum class Kind : std::uint32_t {
        None = TOOLB_EVENT_NONE,
        Request = TOOLB_EVENT_REQUEST,
        Body = TOOLB_EVENT_BODY,
        Cancelled = TOOLB_EVENT_CANCELLED,
        Writable = TOOLB_EVENT_WRITABLE,
        BodyAborted = TOOLB_EVENT_BODY_ABORTED,
        Drain = TOOLB_EVENT_DRAIN,
        HangUp = TOOLB_EVENT_HANG_UP,
        StreamOpen = TOOLB_EVENT_STREAM_OPEN,
        StreamData = TOOLB_EVENT_STREAM_DATA,
        StreamTimeout = TOOLB_EVENT_STREAM_TIMEOUT,
    };

    Event(toolb_consumer *consumer, const toolb_event &event) noexcept
        : consumer_(consumer), event_(event)
    {
    }

    /// A program must expect kinds that it does not know, and ignore them.
    Kind kind() const noexcept { return static_cast<Kind>(event_.kind); }

    /// The exchange that it concerns.
    toolb::Exchange exchange() const noexcept { return {consumer_, event_.exchange}; }

    /// The head of a Request; its views live as long as the exchange.
    toolb::Request request() const noexcept { return toolb::Request(event_.request); }

    /// Body bytes of a Request (until its exchange is over) or a Body, or what a StreamData brings
    /// (both until the next event).
    std::string_view data() const noexcept { return {event_.data.data, event_.data.len}; }

    /// Whether the request's body, or what the client of a stream sends, is complete with this event.
    bool is_end() const noexcept { return (event_.flags & TOOLB_EVENT_END) != 0; }

    /// What Exchange::user_data was given; null before.
    void *user_data() const noexcept { return event_.user_data; }

private:
    toolb_consumer *consumer_;
    toolb_event event_;
};

/// One end of the bus to an engine. One thread at a time uses it, except for stop(); several threads
/// have a consumer each. The destructor leaves the engine, which answers what was not; in a handler of
/// its own it does so when run() or run_events() returns, which it makes them do.
class Consumer {
public:
    /// Attaches: "fd:N", a path or "unix:" and a path; null is what TOOLB_BUS says, or else the
    /// usual place.
    static Result<Consumer> attach(const char *bus = nullptr,
                                   const ConsumerOptions &options = ConsumerOptions())
    {
        toolb_consumer *made = nullptr;
        const toolb_status status = toolb_consumer_attach(bus, &options, &made);
        if (status != TOOLB_OK)
            return detail::explained(status);
        return Consumer(made);
    }

    Consumer(Consumer &&) noexcept = default;
    Consumer &operator=(Consumer &&other) noexcept
    {
        if (this == &other)
            return *this;
        // The consumer that was here leaves before what its routes use goes.
        let_go();
        handle_ = std::move(other.handle_);
        kept_ = std::move(other.kept_);
        failure_ = std::move(other.failure_);
        return *this;
    }

    ~Consumer() { let_go(); }

    /// Answers requests by a handler as Engine::route takes it: one serves behind the bus as it does
    /// in an engine. The first mistake is kept, and run() reports it.
    template <class Handler>
    Consumer &route(const char *method, const char *pattern, Handler handler)
    {
        const toolb_route route = kept_.route(method, pattern, std::move(handler));
        return keep(toolb_consumer_add_route(handle(), method, pattern, &route));
    }

    /// The same with a state, made by `make_state()` when run() begins and destroyed when it ends.
    template <class Make, class Handler>
    Consumer &route(const char *method, const char *pattern, Make make_state, Handler handler)
    {
        const toolb_route route =
            kept_.route(method, pattern, std::move(make_state), std::move(handler));
        return keep(toolb_consumer_add_route(handle(), method, pattern, &route));
    }

    /// route("GET", ...), which answers HEAD, too.
    template <class Handler>
    Consumer &get(const char *pattern, Handler handler)
    {
        return route("GET", pattern, std::move(handler));
    }

    /// route("POST", ...).
    template <class Handler>
    Consumer &post(const char *pattern, Handler handler)
    {
        return route("POST", pattern, std::move(handler));
    }

    /// Serves by the routes, one whole request at a time, until the engine drains or stop() is called;
    /// TOOLB_HANG_UP if the engine has gone. What no route matches is a 404 or 405. Handlers may block.
    Status run()
    {
        if (!failure_)
            return failure_;
        const Run run(handle());
        return detail::explained(toolb_consumer_run(run.consumer(), nullptr, nullptr));
    }

    /// The same, where `handler` answers what no route matches, or all if there are none.
    template <class Handler>
    Status run(Handler handler)
    {
        if (!failure_)
            return failure_;
        const detail::Bound<Handler> bound(std::move(handler), "the handler of a consumer");
        const Run run(handle());
        return detail::explained(toolb_consumer_run(run.consumer(), &detail::Bound<Handler>::call,
                                                    const_cast<detail::Bound<Handler> *>(&bound)));
    }

    /// Serves by `on_event(const toolb::Event &)`, which gets all that comes, bodies in pieces, and
    /// must not block, until the engine hangs up. An exception that leaves it aborts the exchange.
    template <class OnEvent>
    Status run_events(OnEvent on_event)
    {
        static_assert(std::is_invocable_v<OnEvent &, const Event &>,
                      "events are given to on_event(const toolb::Event &)");
        const Run run(handle());
        toolb_consumer *const consumer = run.consumer();
        Status status = detail::explained(toolb_consumer_ready(consumer));
        while (status && (status = detail::explained(toolb_consumer_poll(consumer, 0, nullptr)))) {
            for (Event event = next(consumer); event.kind() != Event::Kind::None;
                 event = next(consumer)) {
                if (!detail::guarded("the handler of an event", [&] { on_event(event); }))
                    (void)event.exchange().abort();
                if (event.kind() == Event::Kind::HangUp || run.is_left())
                    return Status();
            }
            status = detail::explained(toolb_consumer_wait(consumer, -1));
        }
        return status;
    }

    /// Makes run() return. Any thread, and from signal handlers.
    void stop() noexcept { (void)toolb_consumer_stop(handle()); }

    /// Asks the engine for no more requests; when all is done, Event::Kind::HangUp comes.
    Status leave() { return detail::explained(toolb_consumer_leave(handle())); }

    /// Requests may come. run and run_events call it themselves.
    Status ready() { return detail::explained(toolb_consumer_ready(handle())); }

    /// Tells the engine that the program cannot start, and whether it ever could.
    Status fail(const char *reason, bool permanent = false)
    {
        return detail::explained(toolb_consumer_fail(handle(), reason, permanent ? 1 : 0));
    }

    /// For loops of one's own: watch fd() for reading; before blocking, arm() says whether to; then
    /// poll(), and next() until its kind is None.
    Result<int> fd()
    {
        int number = -1;
        const toolb_status status = toolb_consumer_fd(handle(), &number);
        if (status != TOOLB_OK)
            return detail::explained(status);
        return number;
    }

    /// True: the program may block on fd(). False: there is something to poll.
    Result<bool> arm()
    {
        int may_block = 0;
        const toolb_status status = toolb_consumer_arm(handle(), &may_block);
        if (status != TOOLB_OK)
            return detail::explained(status);
        return may_block != 0;
    }

    /// Looks for events, about `most` of them; never blocks.
    Status poll(std::size_t most = 0)
    {
        return detail::explained(toolb_consumer_poll(handle(), most, nullptr));
    }

    /// The next event that poll() found.
    Event next() noexcept { return next(handle()); }

    /// Blocks until there is something to poll.
    Status wait() { return detail::explained(toolb_consumer_wait(handle(), -1)); }

    /// The same, at most for this long: then TOOLB_TIMEOUT.
    Status wait(std::chrono::milliseconds at_most)
    {
        return detail::explained(toolb_consumer_wait(handle(), detail::timeout(at_most)));
    }

    /// Tells the engine all that was written; poll, arm and wait do it in time.
    Status flush() { return detail::explained(toolb_consumer_flush(handle())); }

    /// For the functions of toolb.h that have no method here. It stays this object's.
    toolb_consumer *handle() const noexcept { return handle_.get(); }

private:
    friend class Engine;

    struct Free {
        void operator()(toolb_consumer *consumer) const noexcept
        {
            (void)toolb_consumer_free(consumer);
        }
    };

    /// A call of run() or run_events(). A consumer that is let go of in one of its handlers is freed at
    /// its end, with what its routes use.
    class Run {
    public:
        explicit Run(toolb_consumer *consumer) noexcept : consumer_(consumer), outer_(innermost)
        {
            innermost = this;
        }
        ~Run() { innermost = outer_; }
        Run(const Run &) = delete;
        Run &operator=(const Run &) = delete;

        /// The call on this thread that serves by this consumer; null if there is none.
        static Run *of(const toolb_consumer *consumer) noexcept
        {
            Run *run = innermost;
            while (run != nullptr && run->consumer_ != consumer)
                run = run->outer_;
            return run;
        }

        void leave(detail::Kept kept) noexcept
        {
            kept_ = std::move(kept);
            left_.reset(consumer_);
        }

        toolb_consumer *consumer() const noexcept { return consumer_; }
        bool is_left() const noexcept { return left_ != nullptr; }

    private:
        static inline thread_local Run *innermost = nullptr;

        toolb_consumer *consumer_;
        Run *outer_;
        // In this order: the consumer is freed before what its routes use.
        detail::Kept kept_;
        std::unique_ptr<toolb_consumer, Free> left_;
    };

    explicit Consumer(toolb_consumer *handle) noexcept : handle_(handle) {}

    static Event next(toolb_consumer *consumer) noexcept
    {
        toolb_event event{};
        event.struct_size = sizeof event;
        if (toolb_consumer_next(consumer, &event) != TOOLB_OK)
            event.kind = TOOLB_EVENT_NONE;
        return {consumer, event};
    }

    /// Frees the consumer, or leaves that to who serves by it.
    void let_go() noexcept
    {
        toolb_consumer *const consumer = handle_.release();
        if (consumer == nullptr)
            return;
        Run *const run = Run::of(consumer);
        if (run == nullptr && toolb_consumer_free(consumer) == TOOLB_OK)
            return;
        (void)toolb_consumer_stop(consumer);
        if (run != nullptr)
            run->leave(std::move(kept_));
        else
            // Another thread uses it, against the rules.
            detail::leave(consumer, std::move(kept_));
    }

    /// Remembers the first mistake.
    Consumer &keep(toolb_status status)
    {
        if (status != TOOLB_OK && failure_.ok())
            failure_ = detail::explained(status);
        return *this;
    }

    // In this order: the consumer is freed before what its routes use.
    detail::Kept kept_;
    std::unique_ptr<toolb_consumer, Free> handle_;
    Status failure_;
};

} // namespace TOOLB_MODE
} // namespace toolb

#endif
