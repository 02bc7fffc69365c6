/**
 * The codecs hold 64-bit fields as bigint; everything above them counts with numbers. The spec keeps epochs, numbers and
 * byte counts below 2^53, and what is above is refused here rather than rounded.
 */
import { WireError } from "../errors/index.js";

const maxSafe = BigInt(Number.MAX_SAFE_INTEGER);

/**
 * The number that a decoded uint64 stands for.
 *
 * @param field names the field in the error, such as `Ack.credit`
 * @throws WireError `protocol_violation` above 2^53 − 1
 */
export function numberOfUint64(value: bigint, field: string): number {
  if (value > maxSafe) {
    throw new WireError("protocol_violation", `${field} is ${value}, which is above 2^53 − 1`);
  }
  return Number(value);
}

/**
 * The uint64 to encode for a number.
 *
 * @param field names the field in the error, such as `Batch.epoch`
 * @throws WireError `invalid_argument` for anything but an integer from 0 to 2^53 − 1
 */
export function uint64OfNumber(value: number, field: string): bigint {
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new WireError("invalid_argument", `${field} is ${value}; it must be an integer from 0 to 2^53 − 1`);
  }
  return BigInt(value);
}
