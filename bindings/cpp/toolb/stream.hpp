// Raw connections and the services that speak over them. Part of toolb.hpp.
#ifndef TOOLB_STREAM_HPP
#define TOOLB_STREAM_HPP

#include "callback.hpp"

#include <cstddef>
#include <string_view>
#include <type_traits>

namespace toolb {
inline namespace TOOLB_MODE {

/// For times to wait: the default of the service, or of the engine for streams that a consumer serves;
/// and no limit. What is left of a deadline that has
/// passed, 0 or less, is neither: it is the shortest time there is, 1 ms.
inline constexpr std::chrono::milliseconds by_default = std::chrono::milliseconds::min();
inline constexpr std::chrono::milliseconds never = std::chrono::milliseconds::max();

namespace detail {

/// A time to wait, as services take it.
inline std::uint32_t idle(std::chrono::milliseconds time) noexcept
{
    if (time == never)
        return TOOLB_NO_TIMEOUT;
    if (time == by_default)
        return 0;
    return static_cast<std::uint32_t>(std::max(timeout(time), std::int32_t{1}));
}

} // namespace detail

/// Why a stream ended. A program must expect numbers it does not know.
enum class Reason : int {
    Closed = TOOLB_REASON_CLOSED,
    PeerClosed = TOOLB_REASON_PEER_CLOSED,
    Reset = TOOLB_REASON_RESET,
    Aborted = TOOLB_REASON_ABORTED,
    Timeout = TOOLB_REASON_TIMEOUT,
    SendTimeout = TOOLB_REASON_SEND_TIMEOUT,
    Stopping = TOOLB_REASON_STOPPING,
};

/// The name of a raw connection, to be copied at will; it owns nothing. Everything works in callbacks
/// on the stream's loop only, and answers TOOLB_WRONG_LOOP elsewhere; once the stream has ended,
/// TOOLB_GONE.
class Stream {
public:
    explicit Stream(toolb_stream id = 0) noexcept : id_(id) {}

    /// Begins to connect to a numeric address and a port, or to "unix:" and a path; on_connect or
    /// on_connect_fail follows. It belongs to the service whose callback runs.
    static Result<Stream> connect(const char *host, std::uint16_t port,
                                  std::chrono::milliseconds at_most = by_default,
                                  void *user = nullptr)
    {
        toolb_stream made = 0;
        const toolb_status status =
            toolb_stream_connect(host, port, detail::idle(at_most), user, &made);
        if (status != TOOLB_OK)
            return detail::explained(status);
        return Stream(made);
    }

    /// Never 0 for a stream, and never used again: a key for what a service keeps for each.
    toolb_stream id() const noexcept { return id_; }
    friend bool operator==(Stream one, Stream other) noexcept { return one.id_ == other.id_; }
    friend bool operator!=(Stream one, Stream other) noexcept { return one.id_ != other.id_; }

    /// Asks for one on_receive as soon as anything is unread, be it old, or for on_timeout.
    Status want(std::chrono::milliseconds at_most = by_default) const
    {
        return detail::explained(toolb_stream_want(id_, detail::idle(at_most)));
    }

    /// The same when at least that many bytes are unread, or no more come.
    Status want_bytes(std::size_t least,
                      std::chrono::milliseconds at_most = by_default) const
    {
        return detail::explained(toolb_stream_want_bytes(id_, least, detail::idle(at_most)));
    }

    /// The unread bytes, in place until the running callback returns.
    std::string_view peek() const noexcept
    {
        toolb_slice unread{};
        if (toolb_stream_peek(id_, &unread) != TOOLB_OK)
            return {};
        return {unread.data, unread.len};
    }

    /// Takes unread bytes as read.
    Status consume(std::size_t count) const
    {
        return detail::explained(toolb_stream_consume(id_, count));
    }

    /// Moves unread bytes to a buffer; returns how many.
    std::size_t receive(void *buffer, std::size_t capacity) const noexcept
    {
        std::size_t got = 0;
        (void)toolb_stream_recv(id_, buffer, capacity, &got);
        return got;
    }

    /// Takes all that is unread.
    std::string take() const
    {
        std::string all(peek());
        (void)toolb_stream_consume(id_, all.size());
        return all;
    }

    /// Whether nothing more comes from the peer, so that what is unread is all.
    bool ended() const noexcept
    {
        int ended = 0;
        return toolb_stream_ended(id_, &ended) == TOOLB_OK && ended != 0;
    }

    /// Queues bytes, all or none: TOOLB_FULL until on_writable.
    Status send(std::string_view bytes) const
    {
        return detail::explained(toolb_stream_send(id_, bytes.data(), bytes.size()));
    }

    /// How many queued bytes have not been handed to the system.
    std::size_t unsent() const noexcept
    {
        std::size_t count = 0;
        (void)toolb_stream_unsent(id_, &count);
        return count;
    }

    /// Ends it once everything queued is sent; again is allowed.
    Status close() const { return detail::explained(toolb_stream_close(id_)); }

    /// Ends it at once; what is queued is lost.
    Status abort() const { return detail::explained(toolb_stream_abort(id_)); }

    /// A pointer that is kept with the stream; null if there is none.
    Status user(void *pointer) const
    {
        return detail::explained(toolb_stream_set_user(id_, pointer));
    }
    void *user() const noexcept { return toolb_stream_user(id_); }

    /// The peer's address, such as "127.0.0.1:50000", or "unix:"; empty once it has gone.
    std::string peer() const
    {
        return detail::fetch([this](char *buffer, std::size_t capacity, std::size_t *needed) {
            return toolb_stream_peer(id_, buffer, capacity, needed);
        });
    }

private:
    toolb_stream id_;
};

/// What a service does on one loop: derive from it and override what you need, publicly. Each loop has
/// an object of its own, made and destroyed on its thread; its callbacks never overlap and must not
/// block. An exception that leaves one aborts the stream it is about.
class Service {
public:
    virtual ~Service() = default;

    /// A client has connected.
    virtual void on_accept(Stream) {}

    /// There are unread bytes.
    virtual void on_receive(Stream) {}

    /// Nothing has happened for too long. Unless overridden, the stream is closed.
    virtual void on_timeout(Stream) {}

    /// After TOOLB_FULL: there is room again.
    virtual void on_writable(Stream) {}

    /// It has ended: exactly once for each stream that was accepted or connected.
    virtual void on_close(Stream, Reason) {}

    /// An outgoing connection is there.
    virtual void on_connect(Stream) {}

    /// An outgoing connection came to nothing, by a number of errno.h.
    virtual void on_connect_fail(Stream, int) {}

    /// The engine ends when all connections have.
    virtual void on_drain() {}

protected:
    Service() = default;
    Service(const Service &) = default;
    Service &operator=(const Service &) = default;
};

/// Limits of a service; what is left as it is has its default.
struct ServiceOptions {
    /// How long a stream may be idle when its callbacks do not say.
    std::chrono::milliseconds default_timeout = by_default;
    /// Bytes that are read ahead of the callbacks.
    std::uint32_t receive_limit = 0;
    /// Bytes that may be queued.
    std::uint32_t send_limit = 0;
    /// A stream goes on when the peer ends its side: see Stream::ended.
    bool half_open = false;
};

namespace detail {

/// How toolb.h calls a service that `Make` makes for each loop.
template <class Make>
class BoundService {
    static_assert(std::is_invocable_v<const Make &>,
                  "a service is made by make(), which is const, as several loops call it at once");
    using Made = std::invoke_result_t<const Make &>;
    static_assert(std::is_base_of_v<Service, Made>, "what make() makes is derived from toolb::Service");

public:
    explicit BoundService(Make make) : make_(std::move(make)) {}

    /// What was not overridden is left out, so that the library does what it does in its absence.
    toolb_service description(const ServiceOptions &options) const noexcept
    {
        toolb_service told{};
        told.struct_size = sizeof told;
        told.on_init = [](void *bound, std::uint32_t) noexcept -> void * {
            Made *made = nullptr;
            (void)guarded("making a service", [&] {
                made = new Made(static_cast<const BoundService *>(bound)->make_());
            });
            return made;
        };
        told.on_exit = [](void *made, std::uint32_t) noexcept { delete static_cast<Made *>(made); };
        // Without a service, as its maker threw, nobody is served.
        told.on_accept = tell<&Made::on_accept>;
        told.on_receive = overridden(&Made::on_receive) ? tell<&Made::on_receive> : nullptr;
        told.on_timeout = overridden(&Made::on_timeout) ? tell<&Made::on_timeout> : nullptr;
        told.on_writable = overridden(&Made::on_writable) ? tell<&Made::on_writable> : nullptr;
        told.on_connect = overridden(&Made::on_connect) ? tell<&Made::on_connect> : nullptr;
        told.on_close = [](void *made, toolb_stream stream, toolb_reason reason) noexcept {
            call(made, "on_close", stream, [=](Made &service) {
                service.on_close(Stream(stream), static_cast<Reason>(reason));
            });
        };
        told.on_connect_fail = [](void *made, toolb_stream stream, int error) noexcept {
            call(made, "on_connect_fail", stream,
                 [=](Made &service) { service.on_connect_fail(Stream(stream), error); });
        };
        told.on_drain = [](void *made, std::uint32_t) noexcept {
            call(made, "on_drain", 0, [](Made &service) { service.on_drain(); });
        };
        told.default_timeout_ms = idle(options.default_timeout);
        told.receive_limit = options.receive_limit;
        told.send_limit = options.send_limit;
        told.half_open = options.half_open ? 1 : 0;
        return told;
    }

private:
    /// A function that a class inherits has the type of its base.
    template <class Owner>
    static constexpr bool overridden(void (Owner::*)(Stream)) noexcept
    {
        return !std::is_same_v<Owner, Service>;
    }

    template <auto Callback>
    static void tell(void *made, toolb_stream stream) noexcept
    {
        call(made, "a callback of a stream", stream,
             [=](Made &service) { (service.*Callback)(Stream(stream)); });
    }

    template <class Call>
    static void call(void *made, const char *what, toolb_stream stream, Call callback) noexcept
    {
        auto *service = static_cast<Made *>(made);
        if (service == nullptr || !guarded(what, [&] { callback(*service); }))
            (void)toolb_stream_abort(stream);
    }

    const Make make_;
};

} // namespace detail
} // namespace TOOLB_MODE
} // namespace toolb

#endif
