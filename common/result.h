// result.h - a value or an expected refusal, without exceptions. Part of: common (any process).
// The member names are those of std::expected, which g++ 12 offers only from C++23 on: it can replace this one day.
#pragma once

#include <type_traits>
#include <utility>
#include <variant>

#include "common/check.h"

namespace sallyport {

template <typename E>
struct Unexpected {
  E value;
};

// Makes the error side of a Result: `return refuse(DropReason::BadBox);`
template <typename E>
constexpr Unexpected<std::decay_t<E>> refuse(E&& error) {
  return {std::forward<E>(error)};
}

template <typename T, typename E>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  template <typename F>
  Result(Unexpected<F> error) : state_(std::in_place_index<1>, std::move(error.value)) {}

  bool has_value() const { return state_.index() == 0; }
  explicit operator bool() const { return has_value(); }

  T& value() & {
    CHECK(has_value());
    return *std::get_if<0>(&state_);
  }
  const T& value() const& {
    CHECK(has_value());
    return *std::get_if<0>(&state_);
  }
  T&& value() && {
    CHECK(has_value());
    return std::move(*std::get_if<0>(&state_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  const E& error() const {
    CHECK(!has_value());
    return *std::get_if<1>(&state_);
  }

 private:
  std::variant<T, E> state_;
};

template <typename E>
class [[nodiscard]] Result<void, E> {
 public:
  Result() = default;
  template <typename F>
  Result(Unexpected<F> error) : failed_(true), error_(std::move(error.value)) {}

  bool has_value() const { return !failed_; }
  explicit operator bool() const { return has_value(); }
  const E& error() const {
    CHECK(failed_);
    return error_;
  }

 private:
  bool failed_ = false;
  E error_{};
};

}  // namespace sallyport
