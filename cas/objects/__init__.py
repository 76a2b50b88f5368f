"""The four kinds of object as frozen values with canonical bytes."""
