// status.h - netd's status as proto/net.capnp tells it. Part of: netd-worker 0.
#pragma once

#include "netd/control.h"
#include "proto/net.capnp.h"

namespace sallyport::netd {

class Worker;

// Joins the monitor's report (a StatusReport in the record's memfd) with the counters of all workers.
void writeStatus(Worker& worker, ControlChannel::Received& received, proto::NetStatus::Builder status);

}  // namespace sallyport::netd
