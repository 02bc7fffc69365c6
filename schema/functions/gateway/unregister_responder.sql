BEGIN
  PERFORM hawser.unbind_handler('responder', subject, NULL);
END
