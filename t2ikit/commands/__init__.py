"""The commands of `t2ikit`, by what they are about."""
