// Expect: could not convert|conversion from
#include "peer/hard_keys.h"

using namespace sallyport::peer;
FrameOpener wrongWay(SendSecret own) { return hardOpener(std::move(own), sallyport::wire::PeerParty::A, 1); }
