"""Write a first recipe for a folder of images."""
