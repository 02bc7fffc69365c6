/** Error encoding of the Connect protocol: a JSON object `{"code", "message", "details"}`. */
import { create, toBinary } from "@bufbuild/protobuf";
import { base64Decode, base64Encode } from "@bufbuild/protobuf/wire";
import { type Code, ConnectError } from "@connectrpc/connect";
import { codeOfName, nameOfCode } from "./codes.js";

/** Payload of an error answer. */
export function encodeError(error: ConnectError): Uint8Array {
  const details = error.details.map((detail) => {
    const [type, value] =
      "desc" in detail
        ? [detail.desc.typeName, toBinary(detail.desc, create(detail.desc, detail.value))]
        : [detail.type, detail.value];
    return { type, value: base64Encode(value, "std_raw") };
  });
  const { code, rawMessage: message } = error;
  const json = { code: nameOfCode(code), ...(message && { message }), ...(details.length > 0 && { details }) };
  return new TextEncoder().encode(JSON.stringify(json));
}

/**
 * Decodes the payload of an error answer. Invalid parts are left out, because a decoding error must not hide the
 * original error.
 *
 * @param code code for a payload without one
 */
export function decodeError(payload: Uint8Array, metadata: Headers, code: Code): ConnectError {
  const json = parsed(payload);
  const message = typeof json["message"] === "string" ? json["message"] : "";
  const name = json["code"];
  const error = new ConnectError(message, (typeof name === "string" && codeOfName(name)) || code, metadata);
  error.isWireError = true;
  const details: unknown = json["details"];
  for (const detail of Array.isArray(details) ? details : []) {
    const { type, value } = (detail ?? {}) as Record<string, unknown>;
    if (typeof type !== "string" || typeof value !== "string") continue;
    try {
      error.details.push({ type, value: base64Decode(value) });
    } catch {
      // The value is not valid base64.
    }
  }
  return error;
}

function parsed(payload: Uint8Array): Readonly<Record<string, unknown>> {
  try {
    const json: unknown = JSON.parse(new TextDecoder().decode(payload));
    return typeof json === "object" && json !== null ? (json as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}
