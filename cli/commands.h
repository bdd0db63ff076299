// commands.h - what the table in main.cc calls. Part of: cli. Each returns an exit status, and has said why it is not
// 0.
#pragma once

#include "cli/arguments.h"

namespace sallyport::cli {

// cmd_key.cc
int keyNew(const Arguments& arguments);
int keyList(const Arguments& arguments);
int keyShow(const Arguments& arguments);
int keyRotate(const Arguments& arguments);
int keyImport(const Arguments& arguments);
int keyExportPublic(const Arguments& arguments);
int keyPassphrase(const Arguments& arguments);
// cmd_peer.cc
int peerAdd(const Arguments& arguments);
int peerList(const Arguments& arguments);
int peerRemove(const Arguments& arguments);
// cmd_audit.cc
int auditVerify(const Arguments& arguments);
int auditTail(const Arguments& arguments);
int auditExport(const Arguments& arguments);
// cmd_up.cc
int up(const Arguments& arguments);
// cmd_pipe.cc
int pipeChannel(const Arguments& arguments);
// cmd_status.cc
int status(const Arguments& arguments);
// cmd_config.cc
int check(const Arguments& arguments);
int reload(const Arguments& arguments);

}  // namespace sallyport::cli
