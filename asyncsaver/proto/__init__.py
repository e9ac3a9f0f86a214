"""Messages as they stand on storage, and the code that protoc has made of them (`make proto`)."""
