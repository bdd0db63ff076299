// ciphers.h - the keyed machines that all connections of a worker share. Part of: netd-worker.
// Made before lock-down: OpenSSL fetches its implementations then.
#pragma once

#include "netd/short_term_box.h"
#include "peer/frame_cipher.h"

namespace sallyport::netd {

struct Ciphers {
  MessageCipher message;    // curve_tun
  peer::FrameCipher frame;  // the peer protocol
};

}  // namespace sallyport::netd
