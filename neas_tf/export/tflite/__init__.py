"""TFLite: conversion, quantization, what a file holds, its metadata."""
