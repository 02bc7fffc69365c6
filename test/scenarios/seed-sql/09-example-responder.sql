-- simple responder function
CREATE OR REPLACE FUNCTION litmus_pgnats_test_responder(
  payload text,
  subject text,
  reply_to text
) RETURNS text LANGUAGE sql AS $$
  SELECT 'echo ' || payload;
$$;

-- Adding responder
SELECT litmus_pgnats_register_responder('litmus.test.responder', 'litmus_pgnats_test_responder'::regproc);
