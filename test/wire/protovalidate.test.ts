/**
 * Rules of frames as protovalidate reads them in `frames.proto`: it refuses what the decoder refuses. The frames of the
 * vectors are read with the schema of the spec.
 */
import { create, createFileRegistry, type DescMessage, fromBinary, getOption, type Message } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { createValidator, type Validator } from "@bufbuild/protovalidate";
import * as standard from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import fc from "fast-check";
import { beforeAll, expect, it } from "vitest";
import { checkFrame, type Frame } from "../../src/jobs-and-peers/wire/index.js";
import { compileProject } from "../codegen/support/request.js";
import { atDepth } from "../support/depth.js";
import { bytesOfHex, frameVectors, longFrameVectors, refusedBeyondRules, refusedVectors } from "./vectors.js";

let frameSchema: DescMessage;
let validator: Validator;

beforeAll(async () => {
  const registry = createFileRegistry(create(FileDescriptorSetSchema, { file: await compileProject() }));
  frameSchema = registry.getMessage("hawser.peer.v1.Frame")!;
  validator = createValidator({ registry });
});

/** Rules that a frame breaks. */
function brokenBy(message: Message): string[] {
  const result = validator.validate(frameSchema, message);
  if (result.kind === "error") throw result.error;
  return (result.violations ?? []).map(({ ruleId }) => ruleId);
}

/** Rules that a frame breaks, given without its length prefix; undefined if it is no frame of protobuf. */
function broken(body: Uint8Array): string[] | undefined {
  let message: Message;
  try {
    message = fromBinary(frameSchema, body);
  } catch {
    return undefined;
  }
  return brokenBy(message);
}

const bodyOf = (hex: string): Uint8Array => bytesOfHex(hex).subarray(4);

/** Lengths that leave their message, which protobuf-es does not refuse. */
const misreadLengths = ["number-leaves-ping", "header-leaves-its-message", "compression-leaves-its-message"];

it.each([...frameVectors, ...longFrameVectors])("takes $name", ({ frameHex }) => {
  expect(broken(bodyOf(frameHex))).toEqual([]);
});

it("refuses the vectors that are refused", () => {
  const taken = refusedVectors.filter(({ frameHex }) => broken(bodyOf(frameHex))?.length === 0);
  expect(taken.map(({ name }) => name).sort()).toEqual([...refusedBeyondRules, ...misreadLengths].sort());
});

it("has a vector for each rule in CEL that breaks this rule alone", () => {
  const { cel } = getOption(frameSchema.field["batch"]!.message!, standard.message);
  expect(cel.length).toBeGreaterThan(0);
  const alone = new Set(refusedVectors.map(({ frameHex }) => broken(bodyOf(frameHex))?.join()));
  expect(cel.map(({ id }) => id).filter((id) => !alone.has(id))).toEqual([]);
});

it("agrees with checkFrame on any batch, except for the order of indexes", () => {
  const index = fc.nat({ max: 4 });
  const number = fc.constantFrom(0, 1, 2, 2 ** 53 - 3, 2 ** 53 - 2, 2 ** 53 - 1);
  const batch = fc.record({
    epoch: fc.constantFrom(0, 1, 7),
    delivery: fc.constantFrom(0, 1, 2, 3),
    firstNumber: number,
    topicId: fc.constantFrom(-1, 0, 1, 2),
    payloads: fc.array(fc.uint8Array({ maxLength: 2 }), { maxLength: 4 }),
    compressions: fc.array(
      fc.record({ index, compression: fc.constantFrom(0, 1, 2, 3), uncompressedBytes: fc.constantFrom(0, 1, 2 ** 31) }),
      { maxLength: 3 },
    ),
    headers: fc.array(
      fc.record({
        index,
        headers: fc.array(fc.record({ name: fc.constantFrom("a", "", "a b", "é"), value: fc.constantFrom("", "\n") }), {
          maxLength: 1,
        }),
      }),
      { maxLength: 3 },
    ),
  });
  const byIndex = (one: { readonly index: number }, other: { readonly index: number }) => one.index - other.index;
  fc.assert(
    fc.property(batch, (value) => {
      value.compressions.sort(byIndex);
      value.headers.sort(byIndex);
      const frame = { $case: "batch", value } as Frame;
      let takes = true;
      try {
        checkFrame(frame);
      } catch {
        takes = false;
      }
      const asBigints = {
        ...value,
        epoch: BigInt(value.epoch),
        firstNumber: BigInt(value.firstNumber),
        compressions: value.compressions.map((one) => ({ ...one, uncompressedBytes: BigInt(one.uncompressedBytes) })),
      };
      const message = create(frameSchema, { kind: { case: "batch", value: asBigints } } as Record<string, unknown>);
      expect(brokenBy(message).length === 0).toBe(takes);
    }),
    { numRuns: atDepth(2000) },
  );
});
