// outgoing_channel.h - a channel through a [[connect]] entry, whatever its protocol. Part of: netd-worker 0 (edge).
#pragma once

#include <functional>
#include <memory>

#include "common/result.h"
#include "netd/channel.h"

namespace sallyport::netd {

// Dials and handshakes; `onDone` is called once, with the channel or the reason why there is none.
using OnChannel = std::function<void(Result<std::shared_ptr<ChannelState>, wire::DropReason>)>;
void connectChannel(Worker& worker, const std::shared_ptr<const Entry>& entry, OnChannel onDone);

}  // namespace sallyport::netd
