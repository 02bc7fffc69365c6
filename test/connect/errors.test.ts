/**
 * Errors as they travel, and the codes that stand for the errors of Hawser.
 */
import { create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { errorTable, HawserError } from "../../src/foundation/errors/index.js";
import {
  codeOfName,
  codeOfStatus,
  codesOfErrors,
  connectErrorOf,
  nameOfCode,
  statusOfCode,
} from "../../src/protobuf/connect/codes.js";
import { decodeError, encodeError } from "../../src/protobuf/connect/error-json.js";
import { ShortageSchema } from "./generated/acme/warehouse/v1/warehouse_pb.js";

const codes = Object.values(Code).filter((code) => typeof code === "number");

describe("codes", () => {
  it("have the names of the Connect protocol, and are found by them", () => {
    expect(codes.map(nameOfCode)).toEqual([
      ...["canceled", "unknown", "invalid_argument", "deadline_exceeded", "not_found", "already_exists"],
      ...["permission_denied", "resource_exhausted", "failed_precondition", "aborted", "out_of_range", "unimplemented"],
      ...["internal", "unavailable", "data_loss", "unauthenticated"],
    ]);
    expect(codes.map((code) => codeOfName(nameOfCode(code)))).toEqual(codes);
    expect(codeOfName("Canceled")).toBeUndefined();
  });

  it("have the statuses of the Connect protocol; of a status the most usual code is meant", () => {
    const statuses = [499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401];
    expect(codes.map(statusOfCode)).toEqual(statuses);
    expect([400, 404, 409, 500, 503, 504, 999].map(codeOfStatus)).toEqual([
      ...[Code.InvalidArgument, Code.NotFound, Code.Aborted, Code.Unknown],
      ...[Code.Unavailable, Code.DeadlineExceeded, Code.Unknown],
    ]);
  });

  it("stand for errors that exist; other errors are internal, or unavailable where trying again may help", () => {
    expect(Object.keys(codesOfErrors).filter((code) => !(code in errorTable))).toEqual([]);
    expect(connectErrorOf(new HawserError("connection_lost", "x")).code).toBe(Code.Unavailable);
    expect(connectErrorOf(new HawserError("schema_missing", "x")).code).toBe(Code.Internal);
    const cause = new HawserError("request_timeout", "no answer", { outcome: "unknown" });
    expect(connectErrorOf(cause)).toMatchObject({ code: Code.DeadlineExceeded, rawMessage: "no answer", cause });
  });
});

describe("an error", () => {
  it("arrives as it left: code, message and details", () => {
    const detail = fc.record({ sku: fc.string({ unit: "binary", maxLength: 20 }), left: fc.nat() });
    fc.assert(
      fc.property(
        fc.constantFrom(...codes),
        fc.string({ unit: "binary", maxLength: 20 }),
        fc.array(detail, { maxLength: 3 }),
        (code, text, details) => {
          const outgoing = details.map((value) => ({ desc: ShortageSchema, value }));
          const payload = encodeError(new ConnectError(text, code, undefined, outgoing));
          const error = decodeError(payload, new Headers({ a: "1" }), Code.Unknown);
          expect([error.code, error.rawMessage, error.isWireError]).toEqual([code, text, true]);
          expect(error.findDetails(ShortageSchema)).toEqual(details.map((value) => create(ShortageSchema, value)));
          expect(error.metadata.get("a")).toBe("1");
          // A service that hands it on changes nothing.
          expect(encodeError(error)).toEqual(payload);
        },
      ),
    );
  });

  it("is one whatever its payload is", () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.uint8Array(),
          fc.json().map((text) => new TextEncoder().encode(text)),
        ),
        (payload) => {
          expect(decodeError(payload, new Headers(), Code.DataLoss)).toBeInstanceOf(ConnectError);
        },
      ),
    );
  });
});
