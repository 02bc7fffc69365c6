/**
 * Typed messages: schemas of users' protos as protoc-gen-es generates them. The option `hawser.v1.topic` sets the
 * destination of a message (topic.ts), the options of `buf.validate` the rules of its values (rules.ts).
 *
 * `encode` and `decode` (codec.ts) convert messages to payloads and back, and check them. They produce the same results
 * as protobuf-es several times faster (binary-writer.ts, binary-reader.ts), because a typed message should cost no more
 * than its bytes.
 *
 * A schema is read as data first. The generator of SQL prints that data, and TypeScript compiles it to closures at the
 * first use of the schema, so that both check the same rules.
 */
export { idOfMessage, keyOfMessage, mustFitId, mustNotBeReserved, subjectOf } from "./address.js";
export { type BrokenRule, brokenRule } from "./check.js";
export {
  decode,
  decodeUnchecked,
  encode,
  encodeUnchecked,
  type TypeOfMessage,
  typeOf,
  violationText,
} from "./codec.js";
export {
  type ContentType,
  checkFormat,
  contentTypeHeader,
  contentTypeOf,
  type Format,
  parseContentType,
} from "./content-type.js";
export { Descriptors, payloadLine, type ShownForm, shownPayload } from "./descriptors.js";
export { formatPatterns } from "./formats.js";
export { patternProblem } from "./pattern.js";
export {
  formOf,
  isSchema,
  jsonContentType,
  jsonOf,
  type PayloadForm,
  ReceivedContent,
  textOf,
} from "./payload.js";
export {
  allRulesOf,
  type FieldRules,
  type Rule,
  type RuleValue,
  rulesOf,
  type ValueRules,
} from "./rules.js";
export { hasTopic, type TopicOfSchema, topicOf } from "./topic.js";
