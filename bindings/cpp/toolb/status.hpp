// What a call came to: Status and Result. Part of toolb.hpp.
#ifndef TOOLB_STATUS_HPP
#define TOOLB_STATUS_HPP

#include <toolb.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <optional>
#include <string>
#include <utility>

// Sources that are compiled without exceptions and those with them meet in one program: each kind has
// code of its own, under names of its own, as the same inline function must not be there in two ways.
#if defined(__cpp_exceptions)
#define TOOLB_MODE with_exceptions
#else
#define TOOLB_MODE without_exceptions
#endif

namespace toolb {
inline namespace TOOLB_MODE {

/// Whether something worked, and if not, why.
class [[nodiscard]] Status {
public:
    /// It worked.
    Status() noexcept = default;

    /// What a function of toolb.h returned.
    explicit Status(toolb_status code) noexcept : code_(code) {}

    /// The same with words that say more than toolb_status_text.
    Status(toolb_status code, std::string text) noexcept : code_(code), text_(std::move(text)) {}

    bool ok() const noexcept { return code_ == TOOLB_OK; }
    explicit operator bool() const noexcept { return ok(); }
    toolb_status code() const noexcept { return code_; }

    /// One line for people. It belongs to this object.
    const char *text() const noexcept
    {
        return text_.empty() ? toolb_status_text(code_) : text_.c_str();
    }

private:
    toolb_status code_ = TOOLB_OK;
    std::string text_;
};

/// A T, or why there is none. To ask for the T of a failure ends the program.
template <class T>
class [[nodiscard]] Result {
public:
    Result(T value) : value_(std::move(value)) {}
    Result(Status failure) : status_(std::move(failure)) {}

    bool ok() const noexcept { return value_.has_value(); }
    explicit operator bool() const noexcept { return ok(); }
    const Status &status() const noexcept { return status_; }

    T &operator*() & { return checked(); }
    T &&operator*() && { return std::move(checked()); }
    T *operator->() { return &checked(); }

private:
    T &checked()
    {
        if (!value_) {
            std::fprintf(stderr, "toolb: a failed Result was used: %s\n", status_.text());
            std::abort();
        }
        return *value_;
    }

    std::optional<T> value_;
    Status status_;
};

namespace detail {

/// Writes a line to the log about an exception.
inline void report(const char *what, const char *text) noexcept
{
    char line[512];
    std::snprintf(line, sizeof line, "an exception left %s: %s", what, text);
    (void)toolb_log_error(line);
}

/// Runs code of the application. False: an exception left it, and a line in the log says so.
template <class Call>
bool guarded(const char *what, Call &&call) noexcept
{
#if defined(__cpp_exceptions)
    try {
        std::forward<Call>(call)();
        return true;
    } catch (const std::exception &error) {
        report(what, error.what());
    } catch (...) {
        report(what, "it is no std::exception");
    }
    return false;
#else
    (void)what;
    std::forward<Call>(call)();
    return true;
#endif
}

/// Fetches a text by one of the functions that copy it to a buffer.
template <class Copy>
std::string fetch(Copy copy)
{
    std::string text(127, '\0');
    std::size_t needed = 0;
    toolb_status status;
    // A text may grow between two calls.
    while ((status = copy(text.data(), text.size() + 1, &needed)) == TOOLB_BUFFER_TOO_SMALL)
        text.resize(needed - 1);
    text.resize(status == TOOLB_OK ? needed - 1 : 0);
    return text;
}

/// What a function without an engine has returned just now. These have a text of their own each time.
inline Status explained(toolb_status status)
{
    if (status == TOOLB_BAD_ARGUMENT || status == TOOLB_BAD_STATE || status >= TOOLB_CANNOT_ATTACH)
        return {status, fetch(&toolb_last_error)};
    return Status(status);
}

} // namespace detail
} // namespace TOOLB_MODE
} // namespace toolb

#endif
