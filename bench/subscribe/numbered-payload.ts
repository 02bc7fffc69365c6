/**
 * Payloads that say which one they are, so that order and completeness can be seen in the rows.
 */

/** Digits at the beginning of each payload. */
export const numberDigits = 8;

/** One of its own for each message: what is sent later must not change. */
export function numberedPayload(number: number, bytes: number): Buffer {
  const payload = Buffer.alloc(bytes, "x");
  payload.write(String(number).padStart(numberDigits, "0"), "latin1");
  return payload;
}
