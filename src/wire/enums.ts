/**
 * The names that the layers above use for the enum numbers of the codecs. Delivery and Compression must be known, since
 * they say how to read what follows; an unknown Capability belongs to a newer version and is passed over.
 */
import {
  Capability as CapabilityCode,
  Compression as CompressionCode,
  Delivery as DeliveryCode,
} from "../../generated/ts/codecs/hawser/peer/v1/frames.js";
import { WireError } from "../errors/index.js";
import type { Capability, Compression, Delivery } from "./types.js";

const deliveryCodes: Record<Delivery, DeliveryCode> = {
  "at-least-once": DeliveryCode.AT_LEAST_ONCE,
  "at-most-once": DeliveryCode.AT_MOST_ONCE,
};

const compressionCodes: Record<Compression, CompressionCode> = {
  gzip: CompressionCode.GZIP,
  zstd: CompressionCode.ZSTD,
};

const capabilityCodes: Record<Capability, CapabilityCode> = {
  gzip: CapabilityCode.GZIP,
  zstd: CapabilityCode.ZSTD,
};

/** The enum number of a delivery. */
export function codeOfDelivery(delivery: Delivery): DeliveryCode {
  return deliveryCodes[delivery];
}

/** The delivery of an enum number. @throws WireError `protocol_violation` for an unknown one */
export function deliveryOfCode(code: DeliveryCode): Delivery {
  if (code === DeliveryCode.AT_LEAST_ONCE) return "at-least-once";
  if (code === DeliveryCode.AT_MOST_ONCE) return "at-most-once";
  throw new WireError("protocol_violation", `Batch.delivery is ${code}, which is no known delivery`);
}

/** The enum number of a compression. */
export function codeOfCompression(compression: Compression): CompressionCode {
  return compressionCodes[compression];
}

/** The compression of an enum number. @throws WireError `protocol_violation` for an unknown one */
export function compressionOfCode(code: CompressionCode): Compression {
  if (code === CompressionCode.GZIP) return "gzip";
  if (code === CompressionCode.ZSTD) return "zstd";
  throw new WireError("protocol_violation", `PayloadCompression.compression is ${code}, which is no known compression`);
}

/** The enum numbers of capabilities. */
export function codesOfCapabilities(capabilities: readonly Capability[]): CapabilityCode[] {
  return capabilities.map((capability) => capabilityCodes[capability]);
}

/** The capabilities among enum numbers; unknown numbers and repetitions are left out. */
export function capabilitiesOfCodes(codes: readonly CapabilityCode[]): Capability[] {
  const known = Object.keys(capabilityCodes) as Capability[];
  return known.filter((capability) => codes.includes(capabilityCodes[capability]));
}
