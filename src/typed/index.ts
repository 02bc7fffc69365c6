/**
 * Typed messages: schemas of users' own protos, as protoc-gen-es makes them. The option `hawser.v1.topic` says where a
 * message is sent (topic.ts), the options of `buf.validate` which values it may have (rules.ts).
 *
 * `encode` and `decode` (codec.ts) make payloads of messages and back, and check them. They do what protobuf-es does,
 * several times faster (binary-writer.ts, binary-reader.ts), since a typed message should cost no more than its bytes.
 *
 * What a schema says is data first. The generator of SQL prints that data, and TypeScript compiles it to closures when
 * the schema is used for the first time, so that both check the same.
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
  contentTypeHeader,
  contentTypeOf,
  type Format,
  parseContentType,
} from "./content-type.js";
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
