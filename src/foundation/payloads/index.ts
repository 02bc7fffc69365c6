/**
 * Payloads of users: text, bytes, JSON with or without a Standard Schema, and the header that says the encoding and the type. Messages
 * of Protobuf are in `src/protobuf/typed`, which loads when the first one is sent or handled.
 */
export {
  checkFormat,
  contentTypeHeader,
  contentTypeOf,
  type Format,
  parseContentType,
  type TypeOfMessage,
  typeOf,
} from "./content-type.js";
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
  checkSchemaTopic,
  decodeChecked,
  encodeChecked,
  hasSchema,
  type InputOf,
  isSchemaTopic,
  type OutputOf,
  type SchemaTopic,
} from "./standard-schema.js";
