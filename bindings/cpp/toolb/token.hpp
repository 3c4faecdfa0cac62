// The right to answer later. Part of toolb.hpp.
#ifndef TOOLB_TOKEN_HPP
#define TOOLB_TOKEN_HPP

#include "callback.hpp"

#include <chrono>
#include <memory>
#include <string_view>

namespace toolb {
inline namespace TOOLB_MODE {

/// The right and the duty to answer one request later, from any thread: see Response::later.
///
/// end, answer and abort leave it empty, and its destructor aborts what was not ended: the client
/// gets a 500, or a connection that breaks off. Once nobody waits for the answer any more (the client
/// has left, the time for the response is over, the engine or Consumer::run has ended) every call
/// answers TOOLB_GONE. Several threads may use it at once, but for those three and the destructor.
class Token {
public:
    /// An empty one: every call answers TOOLB_NULL_ARGUMENT.
    Token() noexcept = default;
    explicit Token(toolb_token *handle) noexcept : handle_(handle) {}

    explicit operator bool() const noexcept { return handle_ != nullptr; }

    /// Sets the status code; 200 when not called here or in the handler.
    Status status(std::uint16_t code) const noexcept
    {
        return Status(toolb_token_status(handle(), code));
    }

    /// Adds a field.
    Status field(const char *name, const char *value) const noexcept
    {
        return Status(toolb_token_field(handle(), name, value));
    }

    /// Sends bytes of the body, all or none; before the first of them the head. TOOLB_FULL: wait(),
    /// or on_writable, and write again.
    Status write(std::string_view bytes) const noexcept
    {
        return Status(toolb_token_write(handle(), bytes.data(), bytes.size()));
    }

    /// Waits until what was refused would be taken. Not in a callback on a loop, nor in what
    /// Consumer::run calls: TOOLB_BAD_STATE.
    Status wait() const noexcept { return Status(toolb_token_wait(handle(), -1)); }

    /// The same, at most for this long: then TOOLB_TIMEOUT.
    Status wait(std::chrono::milliseconds at_most) const noexcept
    {
        return Status(toolb_token_wait(handle(), detail::timeout(at_most)));
    }

    /// Has `call()` called, on the request's loop or by the Consumer::run that it came to, when nobody
    /// waits for the answer any more; at most once. TOOLB_GONE, without a call, if that is so already.
    template <class Call>
    Status on_cancel(Call call) const
    {
        using Given = detail::Given<Call>;
        return Status(toolb_token_on_cancel(handle(), &Given::call,
                                            new Given(std::move(call), "an on_cancel"), &Given::drop));
    }

    /// Has `call()` called on the same thread when there is room again, once after each write that
    /// was refused. It may still be running when another thread ends the token.
    template <class Call>
    Status on_writable(Call call) const
    {
        using Given = detail::Given<Call>;
        return Status(toolb_token_on_writable(
            handle(), &Given::call, new Given(std::move(call), "an on_writable"), &Given::drop));
    }

    /// Completes the answer.
    Status end() noexcept { return Status(toolb_token_end(handle_.release())); }

    /// Sends the rest of the body, or all of it, and completes the answer.
    Status answer(std::string_view body) noexcept
    {
        return Status(toolb_token_answer(handle_.release(), body.data(), body.size()));
    }

    /// Gives up.
    Status abort() noexcept { return Status(toolb_token_abort(handle_.release())); }

    /// For the functions of toolb.h. It stays this object's.
    toolb_token *handle() const noexcept { return handle_.get(); }

private:
    struct Abort {
        void operator()(toolb_token *token) const noexcept { (void)toolb_token_abort(token); }
    };

    std::unique_ptr<toolb_token, Abort> handle_;
};

} // namespace TOOLB_MODE
} // namespace toolb

#endif
