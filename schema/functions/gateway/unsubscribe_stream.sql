BEGIN
  PERFORM hawser.unbind_handler('stream', name, NULL);
END
