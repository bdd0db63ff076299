// commands.h - what the table in main.cc calls. Part of: cli. Each returns an exit status, and has said why it is not
// 0.
#pragma once

#include "cli/arguments.h"

namespace sallyport::cli {

// cmd_key.cc
int keyNew(const Arguments& arguments);
int keyList(const Arguments& arguments);
int keyShow(const Arguments& arguments);
int keyImport(const Arguments& arguments);
int keyExportPublic(const Arguments& arguments);
// cmd_key_life.cc
int keyRotate(const Arguments& arguments);
int keyRetire(const Arguments& arguments);
int keyDelete(const Arguments& arguments);
int keyUndelete(const Arguments& arguments);
int keyAllowExport(const Arguments& arguments);
int keyAllowBackup(const Arguments& arguments);
// cmd_key_slots.cc
int keyPassphrase(const Arguments& arguments);
int keySlotList(const Arguments& arguments);
int keySlotAdd(const Arguments& arguments);
int keySlotRemove(const Arguments& arguments);
// cmd_key_transfer.cc
int keyImportKey(const Arguments& arguments);
int keyWrap(const Arguments& arguments);
int keyExport(const Arguments& arguments);
int keyBackup(const Arguments& arguments);
int keyRestore(const Arguments& arguments);
// cmd_vault.cc
int lockVault(const Arguments& arguments);
int unlockVault(const Arguments& arguments);
int panicVault(const Arguments& arguments);
// cmd_box.cc
int boxFile(const Arguments& arguments);
int openFile(const Arguments& arguments);
// cmd_sign.cc
int signFile(const Arguments& arguments);
int verifyFile(const Arguments& arguments);
// cmd_peer.cc
int peerAdd(const Arguments& arguments);
int peerList(const Arguments& arguments);
int peerRemove(const Arguments& arguments);
// cmd_policy.cc
int policyCheck(const Arguments& arguments);
// cmd_audit.cc
int auditVerify(const Arguments& arguments);
int auditTail(const Arguments& arguments);
int auditExport(const Arguments& arguments);
// cmd_up.cc
int up(const Arguments& arguments);
// cmd_pipe.cc
int pipeChannel(const Arguments& arguments);
// cmd_pair.cc
int pair(const Arguments& arguments);
// cmd_status.cc
int status(const Arguments& arguments);
// cmd_config.cc
int check(const Arguments& arguments);
int reload(const Arguments& arguments);

}  // namespace sallyport::cli
