// intrusive_list.h - a doubly linked list whose links live in its elements: no allocation, removal in constant time.
// Part of: common (any process). An element unlinks itself when it dies; the list never owns.
#pragma once

#include <cstddef>

#include "common/check.h"

namespace sallyport {

class ListHook {
 public:
  ListHook() = default;
  ListHook(const ListHook&) = delete;
  ListHook& operator=(const ListHook&) = delete;
  ~ListHook() { unlink(); }

  bool linked() const { return next_ != nullptr; }
  void unlink() {
    if (!linked()) return;
    previous_->next_ = next_;
    next_->previous_ = previous_;
    previous_ = next_ = nullptr;
  }

 private:
  template <typename T, ListHook T::*Hook>
  friend class IntrusiveList;
  ListHook* previous_ = nullptr;
  ListHook* next_ = nullptr;
};

template <typename T, ListHook T::*Hook>
class IntrusiveList {
 public:
  IntrusiveList() { head_.previous_ = head_.next_ = &head_; }
  ~IntrusiveList() {
    while (!empty()) (front()->*Hook).unlink();
    head_.previous_ = head_.next_ = nullptr;
  }

  bool empty() const { return head_.next_ == &head_; }
  T* front() const { return empty() ? nullptr : owner(head_.next_); }
  T* next(const T& element) const {
    ListHook* hook = (element.*Hook).next_;
    return hook == &head_ ? nullptr : owner(hook);
  }
  void pushBack(T& element) {
    ListHook& hook = element.*Hook;
    CHECK(!hook.linked());
    hook.previous_ = head_.previous_;
    hook.next_ = &head_;
    head_.previous_->next_ = &hook;
    head_.previous_ = &hook;
  }

 private:
  static T* owner(ListHook* hook) {
    alignas(T) static char probe[sizeof(T)];
    const auto offset = reinterpret_cast<char*>(&(reinterpret_cast<T*>(probe)->*Hook)) - probe;
    return reinterpret_cast<T*>(reinterpret_cast<char*>(hook) - offset);
  }
  ListHook head_;
};

}  // namespace sallyport
