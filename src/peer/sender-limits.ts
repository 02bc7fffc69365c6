import { type PeerSettings, protocolConstants, storeConstants } from "../../generated/ts/settings/peer.js";
import type { SenderLimits } from "../channel/index.js";

/** The limits of a peer's sending channels. */
export function senderLimits(settings: PeerSettings): SenderLimits {
  return {
    ackTimeoutMs: settings.ackTimeoutMs,
    sendTimeoutMs: settings.sendTimeoutMs,
    connectWaitMs: settings.connectWaitMs,
    maxQueueMessages: settings.maxSendQueueMessages,
    maxQueueBytes: settings.maxSendQueueBytes,
    insertRows: storeConstants.insertRows,
    insertBytes: storeConstants.insertBytes,
    batchBytes: protocolConstants.batchTargetBytes,
    batchMessages: protocolConstants.batchMaxMessages,
    shortBacklogRows: storeConstants.shortBacklogRows,
    storeRetryMinMs: storeConstants.storeRetryMinMs,
    storeRetryMaxMs: storeConstants.storeRetryMaxMs,
  };
}
